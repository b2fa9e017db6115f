"""PostgreSQL as it is used here: how to connect, what it says in one line, and the text that it refuses."""

from __future__ import annotations

import re
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

CONNECT_TIMEOUT_S: Final = 5
_KEEPALIVES: Final = {"keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 2}
_USER_TIMEOUT_MS: Final = 3_000
"""Both sides of a connection that was cut know so after three seconds."""

_REFUSED: Final = re.compile("[\x00\x01]")
_ENCODED: Final = re.compile("\x01[\x01\x02]")


def with_timeouts(url: str, *, lock_timeout_ms: int, statement_timeout_ms: int) -> str:
    """Return a URL, or connection string, with timeouts where it says nothing of them.

    One that cannot be read is returned as it is: whoever connects will hear of it.
    """
    try:
        told: dict[str, Any] = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return url
    timeouts = f"-c lock_timeout={lock_timeout_ms} -c statement_timeout={statement_timeout_ms}"
    return make_conninfo(**{**told, "options": f"{timeouts} {told.get('options') or ''}".strip()})


def connection_info(url: str) -> str:
    """Return what to connect with: what the URL says, and where it says nothing, a time-out and keep-alives.

    Raises psycopg.ProgrammingError if it is no URL of PostgreSQL.
    """
    told = conninfo_to_dict(url)
    server_keepalives = " ".join(f"-c tcp_{name}={value}" for name, value in _KEEPALIVES.items())
    server_keepalives += f" -c tcp_user_timeout={_USER_TIMEOUT_MS}"
    defaults: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "projector", **_KEEPALIVES}
    defaults["tcp_user_timeout"] = _USER_TIMEOUT_MS
    options = f"{server_keepalives} {told.get('options') or ''}".strip()
    return make_conninfo(**{**defaults, **told, "options": options})


def connect(url: str) -> psycopg.Connection[Any]:
    """Open a connection on which each statement is a transaction of its own. Raises psycopg.Error."""
    return psycopg.connect(connection_info(url), autocommit=True)


def one_line(error: psycopg.Error) -> str:
    """Return what an error says, in one line."""
    return "PostgreSQL: " + " ".join(str(error).split())


def encoded(value: Any) -> Any:
    """Return a value as PostgreSQL takes it: its text knows no NUL. The order of texts stays, and prefixes do."""
    return _REFUSED.sub(_escape, value) if type(value) is str and ("\x00" in value or "\x01" in value) else value


def decoded(value: Any) -> Any:
    """Undo `encoded`."""
    return _ENCODED.sub(_unescape, value) if type(value) is str and "\x01" in value else value


def _escape(found: re.Match[str]) -> str:
    return "\x01" + chr(ord(found[0]) + 1)


def _unescape(found: re.Match[str]) -> str:
    return chr(ord(found[0][1]) - 1)
