"""The callbacks of many groups, as the vendor delivers them: out of order, repeated, and some without EventTime."""

import heapq
from bisect import bisect
from collections.abc import Callable, Iterator
from itertools import accumulate, chain
from operator import itemgetter
from random import Random
from typing import Final

from projector.simulator import names
from projector.simulator.expected import ExpectedGroup
from projector.simulator.kinds import KINDS
from projector.simulator.life import Delivery, Life
from projector.simulator.options import Options

_SPAN_MS: Final = 6 * 3600 * 1000
_MIN_AGE_MS: Final = 60_000
_MIN_USERS: Final = 16
_CUSTOM_ID_SHARE: Final = 0.3
_SHORT_DELAY: Final = 5
_LONG_DELAY: Final = 500
_LONG_DELAY_SHARE: Final = 0.05


class Traffic:
    """All callbacks of one simulation, and the state that must follow from them.

    `now_ms` is the sender's clock; the timed callbacks happened in the six hours before. Send `timed` first, over any
    number of connections; then each sequence of `untimed` strictly in order, since only their receipt dates them. Each
    can be consumed once; `expected` is complete after that. `on_happened` is called in the order in which things
    happened in a group, also for callbacks that are lost.
    """

    def __init__(
        self, options: Options, *, now_ms: int, on_happened: Callable[[Life, Delivery], None] = lambda _, __: None
    ) -> None:
        self._options = options
        self._on_happened = on_happened
        self._run = names.run(now_ms // 1000, options.seed)
        self._last_ms = now_ms - _MIN_AGE_MS
        self._lives: list[Life] = []
        self._untimed: list[Iterator[Delivery]] = []
        unique = max(options.groups, round(options.callbacks / (1 + options.repeats)))
        self._shares = self._split(unique, options.groups)
        self.total = round(unique * (1 + options.repeats))
        """The approximate number of callbacks, repeats included."""

    @property
    def expected(self) -> dict[str, ExpectedGroup]:
        return {life.group_id: life.expected for life in self._lives}

    def timed(self) -> Iterator[Delivery]:
        """Yield the callbacks that have an EventTime, nearly in order, some of them twice."""
        sequences = [
            self._with_disorder(self._group_deliveries(number, share), self._disorder(number))
            for number, share in enumerate(self._shares)
        ]
        return (delivery for _, delivery in heapq.merge(*sequences, key=itemgetter(0)))

    def untimed(self) -> Iterator[Iterator[Delivery]]:
        """Yield, for each group, its last callbacks, which have no EventTime."""
        yield from self._untimed
        self._untimed.clear()

    def _group_deliveries(self, number: int, share: int) -> Iterator[Delivery]:
        rng = Random(f"{self._options.seed} {number}")
        (kind,) = rng.choices(KINDS, [kind.weight for kind in KINDS])
        custom_id = rng.random() < _CUSTOM_ID_SHARE
        group_id = names.group_id(kind.type, self._run, number, custom=custom_id)
        user_count = max(_MIN_USERS, share)
        first = rng.randrange(user_count * 4)
        life = Life(rng, group_id, kind, range(first, first + user_count), custom_id=custom_id)
        self._lives.append(life)
        moments = sorted(rng.sample(range(self._last_ms - _SPAN_MS, self._last_ms), share))
        timed = share - sum(rng.random() < self._options.untimed for _ in range(share))
        deliveries = self._not_lost(life, life.deliveries(moments, timed))
        later = []
        for delivery in deliveries:
            if delivery.timed:
                yield delivery
            else:
                later.append(delivery)
                break
        if later:
            rest = chain(later, deliveries)
            self._untimed.append(self._with_repeats(rest, self._disorder(number)))

    def _not_lost(self, life: Life, deliveries: Iterator[Delivery]) -> Iterator[Delivery]:
        rng = Random(f"{self._options.seed} lost {life.group_id}")
        for delivery in deliveries:
            self._on_happened(life, delivery)
            if rng.random() >= self._options.lose:
                yield delivery

    def _disorder(self, number: int) -> Random:
        """Return a group's own random numbers: connections take the deliveries of different groups in any order."""
        return Random(f"{self._options.seed} disorder {number}")

    def _with_disorder(self, deliveries: Iterator[Delivery], rng: Random) -> Iterator[tuple[int, Delivery]]:
        """Yield a group's callbacks with the moment (ms) each arrives: some late, some repeated."""
        delayed: list[tuple[int, Delivery]] = []
        now = 0
        for index, delivery in enumerate(deliveries):
            now = delivery.happened_at
            is_late = rng.random() < self._options.reordered
            if not is_late:
                yield now, delivery
            for _ in range(is_late + (rng.random() < self._options.repeats)):
                heapq.heappush(delayed, (index + _delay(rng), delivery))
            while delayed and delayed[0][0] <= index:
                yield now, heapq.heappop(delayed)[1]
        yield from ((now, delivery) for _, delivery in sorted(delayed))

    def _with_repeats(self, callbacks: Iterator[Delivery], rng: Random) -> Iterator[Delivery]:
        return chain.from_iterable([delivery] * (1 + (rng.random() < self._options.repeats)) for delivery in callbacks)

    def _split(self, total: int, count: int) -> list[int]:
        """Split a total into unequal shares of at least 1, distributed as group sizes are."""
        rng = Random(self._options.seed)
        weights = [rng.paretovariate(1.2) for _ in range(count)]
        bounds = [*accumulate(weights)]
        extra = [0] * count
        for _ in range(total - count):
            extra[bisect(bounds, rng.random() * bounds[-1], hi=count - 1)] += 1
        return [1 + more for more in extra]


def _delay(rng: Random) -> int:
    return rng.randint(1, _LONG_DELAY if rng.random() < _LONG_DELAY_SHARE else _SHORT_DELAY)
