"""The environment, read once into a frozen value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_DATABASE_URL: Final = "sqlite:///projector.db"
_LIBRARY_SETTINGS: Final = ("COMPRESSOR_TOPIC", "CIPHER_TOPIC", "CIPHER_KEY")
_MAX_BODY: Final = 1024 * 1024
_SPOOL: Final = "projector.spool"
_SPOOL_EVENTS: Final = 1_000_000
MAX_QUARANTINED: Final = 10_000
_POOL_SIZE: Final = 5
_LOCK_TIMEOUT_MS: Final = 1_000
_STATEMENT_TIMEOUT_MS: Final = 60_000
CALLBACK_PATH: Final = "/callback"
_PATH: Final = re.compile(r"/[A-Za-z0-9._~/-]*[A-Za-z0-9_-]")
_TAKEN: Final = ("/v1", "/livez", "/readyz", "/metrics", "/openapi.json")
_NAMED: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):(.+)")


class ReadToken(NamedTuple):
    """A bearer token, and the name under which the log knows it."""

    name: str
    token: str


class WrongSetting(Exception):
    """A setting that cannot be used; the text is one line that says which, and what to do."""


class Settings(NamedTuple):
    """What the environment says.

    Either `database_path` is set, to an SQLite file, or `postgres_url` is; questions may have a PostgreSQL server of
    their own in `query_url`. `pool_size` is how many connections events have, and how many questions. `library` is
    passed to the event-sourcing library as it is.
    """

    database_path: str = ""
    postgres_url: str | None = None
    query_url: str | None = None
    pool_size: int = _POOL_SIZE
    lock_timeout_ms: int = _LOCK_TIMEOUT_MS
    statement_timeout_ms: int = _STATEMENT_TIMEOUT_MS
    sdk_app_id: int | None = None
    callback_tokens: tuple[str, ...] = ()
    callback_path: str = CALLBACK_PATH
    read_tokens: tuple[ReadToken, ...] = ()
    max_body_bytes: int = _MAX_BODY
    spool_path: str | None = None
    spool_events: int = _SPOOL_EVENTS
    max_quarantined: int = MAX_QUARANTINED
    library: tuple[tuple[str, str], ...] = ()

    @property
    def read_model_path(self) -> str:
        """The file of the read model, beside that of the events."""
        return f"{self.database_path}.read-model"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings in an environment. Raises WrongSetting."""
    app_id = environment.get("PROJECTOR_SDK_APP_ID", "").strip()
    url = environment.get("PROJECTOR_DATABASE_URL") or _DATABASE_URL
    query_url = environment.get("PROJECTOR_QUERY_DATABASE_URL") or None
    if query_url and not (_is_postgres(url) and _is_postgres(query_url)):
        raise WrongSetting("PROJECTOR_QUERY_DATABASE_URL is for PostgreSQL: set both database URLs to postgresql://…")
    return Settings(
        database_path="" if _is_postgres(url) else _database_path(url),
        postgres_url=url if _is_postgres(url) else None,
        query_url=query_url,
        pool_size=_number(environment, "PROJECTOR_POSTGRES_POOL_SIZE", _POOL_SIZE),
        lock_timeout_ms=_number(environment, "PROJECTOR_POSTGRES_LOCK_TIMEOUT_MS", _LOCK_TIMEOUT_MS),
        statement_timeout_ms=_number(environment, "PROJECTOR_POSTGRES_STATEMENT_TIMEOUT_MS", _STATEMENT_TIMEOUT_MS),
        sdk_app_id=_positive(app_id, "PROJECTOR_SDK_APP_ID") if app_id else None,
        callback_tokens=_listed(environment.get("PROJECTOR_CALLBACK_TOKEN", "")),
        callback_path=_callback_path(environment.get("PROJECTOR_CALLBACK_PATH") or CALLBACK_PATH),
        read_tokens=tuple(map(_read_token, _listed(environment.get("PROJECTOR_READ_TOKENS", "")))),
        max_body_bytes=_number(environment, "PROJECTOR_MAX_BODY_BYTES", _MAX_BODY),
        spool_path=environment.get("PROJECTOR_SPOOL_PATH") or (_SPOOL if _is_postgres(url) else None),
        spool_events=_number(environment, "PROJECTOR_SPOOL_EVENTS", _SPOOL_EVENTS),
        max_quarantined=_number(environment, "PROJECTOR_QUARANTINE_CALLBACKS", MAX_QUARANTINED),
        library=tuple((name, environment[name]) for name in _LIBRARY_SETTINGS if environment.get(name)),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.split(",") if one.strip())


def _read_token(text: str) -> ReadToken:
    named = _NAMED.fullmatch(text)
    return ReadToken(named[1], named[2].strip()) if named else ReadToken("unnamed", text)


def _callback_path(path: str) -> str:
    if not _PATH.fullmatch(path) or path.startswith(_TAKEN):
        raise WrongSetting(
            f"PROJECTOR_CALLBACK_PATH is {path!r}; set it to a path of its own, such as /callback/something-unguessable"
        )
    return path


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    return _positive(environment.get(name) or str(default), name)


def _positive(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise WrongSetting(f"{name} is {text!r}; set it to a positive whole number")
    return int(text)


def _is_postgres(url: str) -> bool:
    return url.startswith(("postgresql://", "postgres://"))


def _database_path(url: str) -> str:
    scheme, separator, path = url.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        shown = url.partition("://")[0] + "://…" if "://" in url else url
        raise WrongSetting(
            f"PROJECTOR_DATABASE_URL is {shown!r}; set it to sqlite:///path/to/file.db or to postgresql://…"
        )
    return path
