"""The environment, read once into a frozen value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_DATABASE_URL: Final = "sqlite:///projector.db"
_LIBRARY_SETTINGS: Final = ("COMPRESSOR_TOPIC", "CIPHER_TOPIC", "CIPHER_KEY")
_MAX_BODY: Final = 1024 * 1024
_SPOOL: Final = "projector.spool"
_SPOOL_EVENTS: Final = 1_000_000


class WrongSetting(Exception):
    """A setting that cannot be used; the text is one line that says which, and what to do."""


class Settings(NamedTuple):
    """What the environment says.

    Either `database_path` is set, to an SQLite file, or `postgres_url` is; questions may have a PostgreSQL server of
    their own in `query_url`. `library` is passed to the event-sourcing library as it is.
    """

    database_path: str = ""
    postgres_url: str | None = None
    query_url: str | None = None
    sdk_app_id: int | None = None
    callback_token: str | None = None
    read_tokens: tuple[str, ...] = ()
    max_body_bytes: int = _MAX_BODY
    spool_path: str | None = None
    spool_events: int = _SPOOL_EVENTS
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
        sdk_app_id=_positive(app_id, "PROJECTOR_SDK_APP_ID") if app_id else None,
        callback_token=environment.get("PROJECTOR_CALLBACK_TOKEN", "").strip() or None,
        read_tokens=tuple(
            token.strip() for token in environment.get("PROJECTOR_READ_TOKENS", "").split(",") if token.strip()
        ),
        max_body_bytes=_positive(
            environment.get("PROJECTOR_MAX_BODY_BYTES") or str(_MAX_BODY), "PROJECTOR_MAX_BODY_BYTES"
        ),
        spool_path=environment.get("PROJECTOR_SPOOL_PATH") or (_SPOOL if _is_postgres(url) else None),
        spool_events=_positive(
            environment.get("PROJECTOR_SPOOL_EVENTS") or str(_SPOOL_EVENTS), "PROJECTOR_SPOOL_EVENTS"
        ),
        library=tuple((name, environment[name]) for name in _LIBRARY_SETTINGS if environment.get(name)),
    )


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
