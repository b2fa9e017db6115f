"""Stores written by released versions, as test data: `make freeze` writes them once, and they never change.

The folder of a version contains

    manifest.json              for each store its settings, digest, head, pseudonyms and quarantine
    *.whl                      the released version
    requests.ndjson.gz         the posted callbacks, each with the receiver's time
    openapi.json               the OpenAPI document
    STORE.sqlite.tar.gz        the files of a store, and of its spool
    STORE.postgresql.sql.gz    the same store on PostgreSQL, and STORE.postgresql.spool.tar.gz
    TRAFFIC.responses.ndjson.gz  the responses of `/v1`, the same for every store with this traffic
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import tarfile
import zipfile
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import psycopg

from tests.kinds import on_postgresql, url_of
from tests.running import run_cli, serving

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.running import Server

HERE = Path(__file__).parent
NEW_FIELDS = ('"source":"callback",', ',"verified_at":null')
"""Fields that responses have since then, of all that is frozen."""

HEADERS = ("ETag", "Projector-Position", "Link", "Content-Type", "Cache-Control")
"""The response headers that clients depend on."""


class Request(NamedTuple):
    """A callback as posted; `at` is the receiver's time in ms; see `writing` for `part`."""

    part: str
    at: int
    query: str
    body: bytes


class Acknowledgement(NamedTuple):
    """The response to a callback: its status, and the position of the event."""

    status: int
    position: int | None

    def __str__(self) -> str:
        return str(self.status) if self.position is None else f"{self.status}:{self.position}"


@dataclass(frozen=True)
class Frozen:
    """The frozen stores of one version."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return manifest

    def store(self, name: str) -> dict[str, Any]:
        """The entry of a store in the manifest."""
        entry: dict[str, Any] = self.manifest["stores"][name]
        return entry

    def requests(self, traffic: str) -> list[Request]:
        """The callbacks of this traffic, in order."""
        parts = self.manifest["traffic"][traffic]
        requests = [
            Request(line["part"], line["at"], line["query"], line["body"].encode(errors="surrogateescape"))
            for line in lines_of(self.folder / "requests.ndjson.gz")
        ]
        return [request for request in requests if request.part in parts]

    def responses(self, traffic: str) -> list[dict[str, Any]]:
        return [*lines_of(self.folder / f"{traffic}.responses.ndjson.gz")]

    def unpack_wheel(self, folder: Path) -> dict[str, str]:
        """Return the settings with which a process runs this version."""
        (wheel,) = self.folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}

    def unpack(self, name: str, folder: Path) -> Path:
        """Restore a store, and its spool into the subfolder `spool`; return the database."""
        database = folder / "events.db"
        if not on_postgresql():
            _extract(self.folder / f"{name}.sqlite.tar.gz", folder)
            return database
        _extract(self.folder / f"{name}.postgresql.spool.tar.gz", folder)
        script = gzip.decompress((self.folder / f"{name}.postgresql.sql.gz").read_bytes())
        with psycopg.connect(url_of(database), autocommit=True) as server:
            server.execute(script)
        return database


VERSIONS = [Frozen(manifest.parent) for manifest in sorted(HERE.glob("*/manifest.json"))]


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")


def lines_of(file: Path) -> Iterator[Any]:
    with gzip.open(file) as lines:
        yield from map(json.loads, lines)


def write_lines(file: Path, lines: Iterable[Any]) -> None:
    """Write NDJSON, the same bytes for the same lines."""
    content = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    file.write_bytes(gzip.compress(content, mtime=0))


class Clock:
    """The time in ms for processes that run with its settings."""

    def __init__(self, file: Path, ms: int) -> None:
        self._file = file
        self.set(ms)

    def set(self, ms: int) -> None:
        with self._file.open("r+b" if self._file.exists() else "w+b", buffering=0) as file:
            file.write(b"%013d" % ms)

    def settings(self, version: dict[str, str], *, unreadable: str | None = None) -> dict[str, str]:
        """The settings of a process of a version, whose own settings are given."""
        paths = [str(HERE / "clock"), *([version["PYTHONPATH"]] if version else [])]
        marker = {"UNREADABLE": unreadable} if unreadable else {}
        return version | {"CLOCK": str(self._file), "PYTHONPATH": ":".join(paths)} | marker


class Connection:
    """A connection to a server that sends every URL unchanged."""

    def __init__(self, server: Server) -> None:
        self._connection = HTTPConnection(urlsplit(server.url).netloc, timeout=60)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def post(self, request: Request) -> Acknowledgement:
        self._connection.request("POST", f"/callback?{request.query}", request.body)
        response = self._connection.getresponse()
        response.read()
        position = response.headers["Projector-Position"]
        return Acknowledgement(response.status, int(position) if position else None)

    def get(self, url: str, **headers: str) -> dict[str, Any]:
        """Return the response as it is frozen: a problem without its detail."""
        self._connection.request("GET", url, headers=headers)
        response = self._connection.getresponse()
        body = response.read().decode()
        seen = {name: response.headers[name] for name in HEADERS if name in response.headers}
        links = [link for link in seen.pop("Link", "").split(", ") if link and not link.endswith('rel="changes"')]
        if links:  # those to the changes are new
            seen["Link"] = ", ".join(links)
        result = {"url": url, "status": response.status, "headers": seen}
        if response.status >= 400:
            return result | {"title": json.loads(body)["title"]}
        return result | {"body": body}


def post(server: Server, requests: Iterable[Request], clock: Clock) -> list[Acknowledgement]:
    """Post callbacks one after the other, each at its time."""
    acknowledged = []
    with Connection(server) as connection:
        for request in requests:
            clock.set(request.at)
            acknowledged.append(connection.post(request))
    return acknowledged


@contextmanager
def writing(
    database: Path, requests: Sequence[Request], forgotten: Iterable[str], clock: Clock, **settings: str
) -> Iterator[tuple[Server, list[Acknowledgement]]]:
    """Write a store, and serve it: post the parts `small` and `large`, forget accounts, replay, post `after`."""
    with serving(database, **settings) as server:
        acknowledged = post(server, [request for request in requests if request.part in ("small", "large")], clock)
    for arguments in (("forget", "--yes", *forgotten), ("replay", "--jobs", "2")):
        done = run_cli(database, *arguments, **settings)
        assert done.returncode == 0, done.stdout + done.stderr
    with serving(database, **settings) as server:
        acknowledged += post(server, [request for request in requests if request.part == "after"], clock)
        head = max(each.position or 0 for each in acknowledged)
        server.get("/v1/groups", wait_for=head).raise_for_status()
        yield server, acknowledged


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Query the event database; `POSITION` stands for the column of the position."""
    if on_postgresql():
        with psycopg.connect(url_of(database)) as server:
            return server.execute(query.replace("POSITION", "notification_id")).fetchall()
    with closing(sqlite3.connect(database)) as file:
        return file.execute(query.replace("POSITION", "rowid")).fetchall()


def differing(server: Server, responses: Iterable[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the responses that changed, each as (frozen, current)."""
    with Connection(server) as connection:
        pairs = ((frozen, without_new_fields(connection.get(frozen["url"]))) for frozen in responses)
        return [(frozen, current) for frozen, current in pairs if frozen != current]


def without_new_fields(response: dict[str, Any]) -> dict[str, Any]:
    """Return a response as it was before fields were added, with the ETag that it then has."""
    body = response.get("body", "")
    for field in NEW_FIELDS:
        body = body.replace(field, "")
    if body == response.get("body", ""):
        return response
    etag = f'"{blake2b(body.encode(), digest_size=12).hexdigest()}"'
    return response | {"body": body, "headers": response["headers"] | {"ETag": etag}}
