"""Many lives at once, told as the vendor tells them: out of order, twice, and sometimes without the time."""

from __future__ import annotations

import heapq
from bisect import bisect
from itertools import accumulate, chain
from operator import itemgetter
from random import Random
from typing import TYPE_CHECKING, Final

from projector.simulator import names
from projector.simulator.kinds import KINDS
from projector.simulator.life import Life

if TYPE_CHECKING:
    from collections.abc import Iterator

    from projector.simulator.expected import ExpectedGroup
    from projector.simulator.life import Told
    from projector.simulator.options import Options

_SPAN_MS: Final = 6 * 3600 * 1000
_ENDS_BEFORE_NOW_MS: Final = 60_000
_SMALLEST_CIRCLE: Final = 16
_CUSTOM_IDS: Final = 0.3
_NEAR: Final = 5
_FAR: Final = 500
_GOES_FAR: Final = 0.05


class Traffic:
    """All callbacks of one simulation, and what must be shown once all have arrived.

    `now_ms` is the sender's clock; everything timed happened in the six hours before it. Go through `timed` first, in
    any number of connections at once; then each sequence in `untimed` by itself, strictly in order: only their receipt
    says when they happened. Both can be gone through once, and `expected` is right after that.
    """

    def __init__(self, options: Options, *, now_ms: int) -> None:
        self._options = options
        self._rng = Random(options.seed)
        self._run = f"{now_ms // 1000:x}{options.seed}"
        self._last_ms = now_ms - _ENDS_BEFORE_NOW_MS
        self._lives: list[Life] = []
        self._tails: list[Iterator[Told]] = []
        unique = max(options.groups, round(options.callbacks / (1 + options.repeats)))
        self._shares = self._split(unique, options.groups)
        self.total = round(unique * (1 + options.repeats))
        """About how many callbacks there are, repeats included."""

    @property
    def expected(self) -> dict[str, ExpectedGroup]:
        """What must be shown of each group."""
        return {life.group_id: life.expected for life in self._lives}

    def timed(self) -> Iterator[Told]:
        """Yield the callbacks that tell their time, nearly in order, some of them twice."""
        stories = [self._disturbed(self._story(number, share)) for number, share in enumerate(self._shares)]
        return (told for _, told in heapq.merge(*stories, key=itemgetter(0)))

    def untimed(self) -> Iterator[Iterator[Told]]:
        """Yield, for each group, what happened last in it and does not tell when."""
        for tail in self._tails:
            yield self._twice_at_times(tail)
        self._tails.clear()

    def _story(self, number: int, share: int) -> Iterator[Told]:
        rng = Random(f"{self._options.seed} {number}")
        (kind,) = rng.choices(KINDS, [kind.weight for kind in KINDS])
        custom_id = rng.random() < _CUSTOM_IDS
        group_id = names.group_id(kind.type, self._run, number, custom=custom_id)
        circle_size = max(_SMALLEST_CIRCLE, share)
        first = rng.randrange(circle_size * 4)
        life = Life(rng, group_id, kind, range(first, first + circle_size), custom_id=custom_id)
        self._lives.append(life)
        moments = sorted(rng.sample(range(self._last_ms - _SPAN_MS, self._last_ms), share))
        timed = share - sum(rng.random() < self._options.untimed for _ in range(share))
        told = life.tell(moments, timed)
        for _ in range(timed):
            yield next(told)
        if timed < share:
            self._tails.append(told)

    def _disturbed(self, story: Iterator[Told]) -> Iterator[tuple[int, Told]]:
        """Yield a group's callbacks with the moment (ms) each arrives: some after later ones, some once more."""
        held: list[tuple[int, Told]] = []
        now = 0
        for place, told in enumerate(story):
            now = told.happened_at
            is_late = self._chance(self._options.reordered)
            if not is_late:
                yield now, told
            for _ in range(is_late + self._chance(self._options.repeats)):
                heapq.heappush(held, (place + self._distance(), told))
            while held and held[0][0] <= place:
                yield now, heapq.heappop(held)[1]
        yield from ((now, told) for _, told in sorted(held))

    def _twice_at_times(self, callbacks: Iterator[Told]) -> Iterator[Told]:
        return chain.from_iterable([told] * (1 + self._chance(self._options.repeats)) for told in callbacks)

    def _distance(self) -> int:
        return self._rng.randint(1, _FAR if self._chance(_GOES_FAR) else _NEAR)

    def _split(self, total: int, parts: int) -> list[int]:
        """Split a total into unequal parts, each 1 or more, as group sizes are."""
        weights = [self._rng.paretovariate(1.2) for _ in range(parts)]
        bounds = [*accumulate(weights)]
        extra = [0] * parts
        for _ in range(total - parts):
            extra[bisect(bounds, self._rng.random() * bounds[-1], hi=parts - 1)] += 1
        return [1 + more for more in extra]

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share
