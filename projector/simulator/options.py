"""What a simulation is asked to do."""

from __future__ import annotations

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Where the traffic goes, how much there is of it, and what befalls it. Shares are from 0 to 1.

    `url` is the receiver's base address: callbacks are posted to `callback_path` there, questions asked under `/v1`.
    With a `token` every callback is signed; `read_token` goes with the questions. `callbacks` is about how many are
    posted, repeats included. `rate` is in callbacks per second, None is as fast as they are answered.

    `repeats` is the share of callbacks that come twice. Of those that tell their time, `reordered` is the share that
    is held back while later ones of the same group pass. `untimed` is the share that does not tell it.
    """

    url: str
    sdk_app_id: int
    callback_path: str = "/callback"
    token: str | None = None
    read_token: str | None = None
    seed: int = 1
    groups: int = 100
    callbacks: int = 10_000
    connections: int = 16
    rate: float | None = None
    repeats: float = 0.05
    reordered: float = 0.05
    untimed: float = 0.02
    check: bool = True
