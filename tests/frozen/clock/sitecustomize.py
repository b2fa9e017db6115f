"""For processes with this folder on PYTHONPATH: a clock that is set by the test, and pseudonyms that are numbered.

`CLOCK` is a file with the time in ms since 1970 UTC, in 13 digits. With `UNREADABLE`, a callback with this field cannot
be read.
"""

import itertools
import os
import secrets
import time

import msgspec

_clock = os.open(os.environ["CLOCK"], os.O_RDONLY)
_unreadable = os.environ.get("UNREADABLE")
_numbers = itertools.count(1)
_convert = msgspec.convert


def _ms() -> int:
    return int(os.pread(_clock, 13, 0))


def _token_hex(size: int = 8) -> str:
    return f"{next(_numbers):0{2 * size}x}"


def _convert_all_but_some(fields, into, **options):
    if isinstance(fields, dict) and _unreadable in fields:
        raise msgspec.ValidationError(f"the field {_unreadable} is not understood")
    return _convert(fields, into, **options)


time.time = lambda: _ms() / 1000
time.time_ns = lambda: _ms() * 1_000_000
secrets.token_hex = _token_hex
if _unreadable:
    msgspec.convert = _convert_all_but_some
