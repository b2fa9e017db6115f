"""The settings, read once from the environment."""

import ipaddress
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

_DATABASE_URL: Final = "sqlite:///projector.db"
_SPOOL_PATH: Final = "projector.spool"
_LIBRARY_SETTINGS: Final = ("COMPRESSOR_TOPIC", "CIPHER_TOPIC", "CIPHER_KEY")
_FROM_FILES: Final = (
    "PROJECTOR_CALLBACK_TOKEN",
    "PROJECTOR_READ_TOKENS",
    "PROJECTOR_DATABASE_URL",
    "PROJECTOR_QUERY_DATABASE_URL",
    "PROJECTOR_REST_KEY",
    "PROJECTOR_FORWARD_SECRET",
    "CIPHER_KEY",
)
"""Settings that hold secrets; `…_FILE` names a file that contains one."""

_NAMES: Final = frozenset(
    {
        *(
            "PROJECTOR_SDK_APP_ID",
            "PROJECTOR_CALLBACK_PATH",
            "PROJECTOR_MAX_BODY_BYTES",
            "PROJECTOR_QUARANTINE_CALLBACKS",
        ),
        *("PROJECTOR_LOG_LEVEL", "PROJECTOR_LOG_FORMAT"),
        *("PROJECTOR_SPOOL_PATH", "PROJECTOR_SPOOL_EVENTS", "PROJECTOR_POSTGRES_POOL_SIZE"),
        *("PROJECTOR_POSTGRES_LOCK_TIMEOUT_MS", "PROJECTOR_POSTGRES_STATEMENT_TIMEOUT_MS"),
        *("PROJECTOR_REST_URL", "PROJECTOR_REST_ADMIN", "PROJECTOR_REST_RATE", "PROJECTOR_REST_SETTLE_S"),
        "PROJECTOR_RECONCILE_EVERY_S",
        *_FROM_FILES,
        *(f"{name}_FILE" for name in _FROM_FILES),
    }
)
_PREFIX: Final = "PROJECTOR_"
_MIN_SIMILARITY: Final = 0.75
_CALLBACK_PATH: Final = re.compile(r"/[A-Za-z0-9._~/-]*[A-Za-z0-9_-]")
_RESERVED_PREFIXES: Final = ("/v1", "/livez", "/readyz", "/metrics", "/openapi.json")
_NAMED_TOKEN: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):(.+)")


_SECRET_BYTES: Final = range(24, 65)
_LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_LOG_FORMATS: Final = ("json", "console")


class ReadToken(NamedTuple):
    """A bearer token, and its name in logs."""

    name: str
    token: str


class Rest(NamedTuple):
    """The vendor's REST API: its address, an administrator of the app, and the app's secret key.

    `rate` is in requests a second. A difference must stand `settle_s` seconds. With `every_s`, runs are that far apart.
    """

    url: str
    administrator: str
    key: str
    rate: int = 50
    settle_s: int = 60
    every_s: int | None = None


class WrongSetting(Exception):
    """A setting is wrong or missing. The text is one line that names it, and the remedy."""


class Settings(NamedTuple):
    """All settings, with their defaults.

    Either `database_path`, of an SQLite file, or `postgres_url` is set. `query_url` is a PostgreSQL server for queries.
    `pool_size` is the number of connections for events, and the number of threads for queries. `library` is passed to
    the event-sourcing library unchanged. `log_format` is json or console; None is console on a terminal, else json.
    """

    database_path: str = ""
    postgres_url: str | None = None
    query_url: str | None = None
    pool_size: int = 5
    lock_timeout_ms: int = 1_000
    statement_timeout_ms: int = 60_000
    sdk_app_id: int | None = None
    callback_tokens: tuple[str, ...] = ()
    callback_path: str = "/callback"
    read_tokens: tuple[ReadToken, ...] = ()
    forward_secrets: tuple[bytes, ...] = ()
    max_body_bytes: int = 1024 * 1024
    spool_path: str | None = None
    spool_events: int = 1_000_000
    max_quarantined: int = 10_000
    library: tuple[tuple[str, str], ...] = ()
    rest: Rest | None = None
    log_level: str = "INFO"
    log_format: str | None = None
    unknown_names: tuple[str, ...] = ()

    @property
    def read_model_path(self) -> str:
        return f"{self.database_path}.read-model"


_DEFAULTS: Final = Settings()


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings of an environment. Raises WrongSetting."""
    environment = _with_files(environment)
    app_id = environment.get("PROJECTOR_SDK_APP_ID", "").strip()
    url = environment.get("PROJECTOR_DATABASE_URL") or _DATABASE_URL
    query_url = environment.get("PROJECTOR_QUERY_DATABASE_URL") or None
    if query_url and not (_is_postgres(url) and _is_postgres(query_url)):
        raise WrongSetting("PROJECTOR_QUERY_DATABASE_URL needs PostgreSQL; set both database URLs to postgresql://…")
    return Settings(
        database_path="" if _is_postgres(url) else _database_path(url),
        postgres_url=url if _is_postgres(url) else None,
        query_url=query_url,
        pool_size=_number(environment, "PROJECTOR_POSTGRES_POOL_SIZE", _DEFAULTS.pool_size),
        lock_timeout_ms=_number(environment, "PROJECTOR_POSTGRES_LOCK_TIMEOUT_MS", _DEFAULTS.lock_timeout_ms),
        statement_timeout_ms=_number(
            environment, "PROJECTOR_POSTGRES_STATEMENT_TIMEOUT_MS", _DEFAULTS.statement_timeout_ms
        ),
        sdk_app_id=_positive(app_id, "PROJECTOR_SDK_APP_ID") if app_id else None,
        callback_tokens=_split(environment.get("PROJECTOR_CALLBACK_TOKEN", "")),
        callback_path=_callback_path(environment.get("PROJECTOR_CALLBACK_PATH") or _DEFAULTS.callback_path),
        read_tokens=tuple(map(_read_token, _split(environment.get("PROJECTOR_READ_TOKENS", "")))),
        forward_secrets=tuple(map(_forward_secret, _split(environment.get("PROJECTOR_FORWARD_SECRET", "")))),
        max_body_bytes=_number(environment, "PROJECTOR_MAX_BODY_BYTES", _DEFAULTS.max_body_bytes),
        spool_path=environment.get("PROJECTOR_SPOOL_PATH") or (_SPOOL_PATH if _is_postgres(url) else None),
        spool_events=_number(environment, "PROJECTOR_SPOOL_EVENTS", _DEFAULTS.spool_events),
        max_quarantined=_number(environment, "PROJECTOR_QUARANTINE_CALLBACKS", _DEFAULTS.max_quarantined),
        library=tuple((name, environment[name]) for name in _LIBRARY_SETTINGS if environment.get(name)),
        rest=_rest(environment),
        log_level=_choice(environment, "PROJECTOR_LOG_LEVEL", _LOG_LEVELS, str.upper) or _DEFAULTS.log_level,
        log_format=_choice(environment, "PROJECTOR_LOG_FORMAT", _LOG_FORMATS, str.lower),
        unknown_names=_unknown_names(environment),
    )


def _rest(environment: Mapping[str, str]) -> Rest | None:
    names = ("PROJECTOR_REST_URL", "PROJECTOR_REST_ADMIN", "PROJECTOR_REST_KEY")
    given = [environment.get(name, "").strip() for name in names]
    every = environment.get("PROJECTOR_RECONCILE_EVERY_S")
    if not any(given) and not every:
        return None
    if missing := [name for name, value in zip(names, given, strict=True) if not value]:
        raise WrongSetting(f"{' and '.join(missing)} must be set, too, to reconcile with the vendor's REST API")
    return Rest(
        _rest_url(given[0]),
        given[1],
        given[2],
        rate=_number(environment, "PROJECTOR_REST_RATE", 50),
        settle_s=_number(environment, "PROJECTOR_REST_SETTLE_S", 60),
        every_s=_positive(every, "PROJECTOR_RECONCILE_EVERY_S") if every else None,
    )


def _rest_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        scheme, host, _ = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        scheme = host = ""
    if not host or not (scheme == "https" or (scheme == "http" and is_loopback(host))):
        raise WrongSetting(
            f"PROJECTOR_REST_URL is {url!r}; set it to https:// and the host of the app's region, such as"
            " https://adminapisgp.im.qcloud.com"
        )
    return f"{scheme}://{parts.netloc}"


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _with_files(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the contents of files in place of their names."""
    result = dict(environment)
    for name in _FROM_FILES:
        if path := result.get(f"{name}_FILE"):
            if result.get(name):
                raise WrongSetting(f"{name} and {name}_FILE are both set; set one of them")
            try:
                result[name] = Path(path).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not text"
                raise WrongSetting(f"{name}_FILE: cannot read {path}: {reason}") from None
    return result


def _unknown_names(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names that look like settings and are not. Raises WrongSetting for what must be a typing error."""
    unknown = sorted(name for name in environment if name.startswith(_PREFIX) and name not in _NAMES)
    endings = {name.removeprefix(_PREFIX): name for name in _NAMES}
    for name in unknown:
        if similar := get_close_matches(name.removeprefix(_PREFIX), endings, n=1, cutoff=_MIN_SIMILARITY):
            raise WrongSetting(f"there is no setting {name}; did you mean {endings[similar[0]]}?")
    return tuple(unknown)


def _split(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _read_token(text: str) -> ReadToken:
    named = _NAMED_TOKEN.fullmatch(text)
    return ReadToken(named[1], named[2].strip()) if named else ReadToken("unnamed", text)


def _forward_secret(text: str) -> bytes:
    prefix, _, encoded = text.partition("_")
    with suppress(ValueError):
        secret = b64decode(encoded, validate=True)
        if prefix == "whsec" and len(secret) in _SECRET_BYTES:
            return secret
    raise WrongSetting(
        "PROJECTOR_FORWARD_SECRET is not a secret of Standard Webhooks; set it to whsec_ and 24 to 64 bytes in base64"
    )


def _callback_path(path: str) -> str:
    if not _CALLBACK_PATH.fullmatch(path) or path.startswith(_RESERVED_PREFIXES):
        raise WrongSetting(
            f"PROJECTOR_CALLBACK_PATH is {path!r}; set it to an unused path, such as /callback/something-unguessable"
        )
    return path


def _choice(
    environment: Mapping[str, str], name: str, choices: tuple[str, ...], spelling: Callable[[str], str]
) -> str | None:
    given = environment.get(name)
    if given and spelling(given) not in choices:
        raise WrongSetting(f"{name} is {given!r}; set it to {', '.join(choices[:-1])} or {choices[-1]}")
    return spelling(given) if given else None


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
    if path == ":memory:" or path.startswith("file:"):
        raise WrongSetting(f"PROJECTOR_DATABASE_URL is {url!r}; events must be in a file: sqlite:///path/to/file.db")
    return path
