"""The options of a simulation."""

import msgspec


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The destination of the traffic, its amount, and its disorder. Shares are from 0 to 1.

    `url` is the receiver's base address, and `queries_url` that of `/v1`, if it is another. With a `token`, callbacks
    are signed; `read_token` is for queries. `callbacks` is their approximate number, repeats included. `rate` is in
    callbacks per second; None is as fast as they are acknowledged. A store with groups of other origin is refused
    unless `into_existing`.

    `repeats` is the share of callbacks sent twice, `untimed` the share without EventTime. Of the others, `reordered` is
    the share that is sent after later callbacks of the same group. `lose` is the share that is never sent.
    """

    url: str
    sdk_app_id: int
    callback_path: str
    queries_url: str | None = None
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
    lose: float = 0.0
    check: bool = True
    into_existing: bool = False
