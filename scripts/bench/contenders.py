"""What ours is measured against, each a server of its own: `python -m scripts.bench.contenders NAME`.

ceiling   parses a callback and answers, and keeps nothing
upsert    the current state only: one committed upsert per callback into SQLite
stock     an aggregate per group, loaded and saved per callback, and a projection with a transaction per event, as the
          event-sourcing library's documentation teaches it; on SQLite or, if DATABASE_URL says so, on PostgreSQL
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import sys
import threading
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid5

import uvicorn
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError, Tracking, TrackingRecorder
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.sqlite import SQLiteDatastore, SQLiteTrackingRecorder
from psycopg.conninfo import conninfo_to_dict
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager

    from starlette.requests import Request

_OK = {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0}


async def _ceiling(request: Request) -> Response:
    json.loads(await request.body())
    return JSONResponse(_OK)


async def _bytes(request: Request) -> Response:
    return Response(b"x" * int(request.path_params["size"]), media_type="application/json")


async def _not_modified(_: Request) -> Response:
    return Response(status_code=304, headers={"ETag": '"1"'})


def ceiling(_: str) -> Starlette:
    get = [Route("/bytes/{size}", _bytes), Route("/not-modified", _not_modified)]
    return Starlette(routes=[Route("/callback", _ceiling, methods=["POST"]), *get])


def upsert(database: str) -> Starlette:
    connection = sqlite3.connect(database, isolation_level=None)
    for statement in (
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        """CREATE TABLE members (group_id TEXT, user_id TEXT, is_member INTEGER, at INTEGER,
            PRIMARY KEY (group_id, user_id)) WITHOUT ROWID""",
    ):
        connection.execute(statement)

    async def receive(request: Request) -> Response:
        group_id, users, joined, at = _said(json.loads(await request.body()))
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO members VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET is_member = excluded.is_member, at = excluded.at WHERE excluded.at >= at",
            [(group_id, user, joined, at) for user in users],
        )
        connection.execute("COMMIT")
        return JSONResponse(_OK)

    return Starlette(routes=[Route("/callback", receive, methods=["POST"])])


class Group(Aggregate):
    @event("Created")
    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.members: set[str] = set()

    @staticmethod
    def create_id(group_id: str) -> UUID:
        return uuid5(NAMESPACE_URL, group_id)

    @event("Joined")
    def join(self, users: list[str], at: int) -> None:  # noqa: ARG002 - kept in the event
        self.members.update(users)

    @event("Left")
    def leave(self, users: list[str], at: int) -> None:  # noqa: ARG002 - kept in the event
        self.members.difference_update(users)


class Groups(Application):
    def record(self, group_id: str, users: list[str], joined: bool, at: int) -> None:
        while True:
            try:
                group: Group = self.repository.get(Group.create_id(group_id))
            except AggregateNotFoundError:
                group = Group(group_id)
            (group.join if joined else group.leave)(users, at)
            with contextlib.suppress(IntegrityError):  # somebody else was faster; again
                self.save(group)
                return


class View(TrackingRecorder):
    """Where members stand, and the position, in one transaction."""

    def stand(self, group_id: str, users: list[str], is_member: bool, tracking: Tracking) -> None:
        raise NotImplementedError


_MEMBERS = """CREATE TABLE IF NOT EXISTS members (
    group_id TEXT, user_id TEXT, is_member INTEGER, PRIMARY KEY (group_id, user_id))"""
_STANDS = """INSERT INTO members VALUES ({0}, {0}, {0})
    ON CONFLICT (group_id, user_id) DO UPDATE SET is_member = excluded.is_member"""


class SQLiteView(SQLiteTrackingRecorder, View):
    def construct_create_table_statements(self) -> list[str]:
        return [*super().construct_create_table_statements(), _MEMBERS]

    def stand(self, group_id: str, users: list[str], is_member: bool, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            for user in users:
                cursor.execute(_STANDS.format("?"), (group_id, user, int(is_member)))


class PostgresView(PostgresTrackingRecorder, View):
    def _create_table(self, curs: Any) -> None:
        super()._create_table(curs)
        curs.execute(_MEMBERS)

    def stand(self, group_id: str, users: list[str], is_member: bool, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            for user in users:
                cursor.execute(_STANDS.format("%s"), (group_id, user, int(is_member)))


class Members(Projection[View]):
    name = "members"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        if isinstance(domain_event, Group.Joined | Group.Left):
            joined = isinstance(domain_event, Group.Joined)
            self.view.stand(str(domain_event.originator_id), domain_event.users, joined, tracking)


def stock(database: str) -> Starlette:
    on_postgres = database.startswith("postgresql:")
    if on_postgres:
        parameters = conninfo_to_dict(database)
        names = {"dbname": "DBNAME", "host": "HOST", "port": "PORT", "user": "USER"}
        environment = {f"POSTGRES_{names[key]}": str(value) for key, value in parameters.items() if key in names}
        environment |= {"PERSISTENCE_MODULE": "eventsourcing.postgres", "POSTGRES_PASSWORD": ""}
    else:
        environment = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": database}
    app, running = _on_postgres(environment) if on_postgres else _on_sqlite(environment)

    async def receive(request: Request) -> Response:
        fact = _said(json.loads(await request.body()))
        if on_postgres:  # other threads get on while one waits for the server
            await run_in_threadpool(app.record, *fact)
        else:
            app.record(*fact)
        return JSONResponse(_OK)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with running:
            yield

    return Starlette(routes=[Route("/callback", receive, methods=["POST"])], lifespan=lifespan)


def _on_postgres(environment: dict[str, str]) -> tuple[Groups, AbstractContextManager[Any]]:
    runner = ProjectionRunner(
        application_class=Groups, projection_class=Members, view_class=PostgresView, env=environment
    )
    return runner.app, runner


def _on_sqlite(environment: dict[str, str]) -> tuple[Groups, AbstractContextManager[Any]]:
    """The library's subscriptions need PostgreSQL; here its notifications are read one after the other."""
    app, view = Groups(environment), SQLiteView(SQLiteDatastore(f"{environment['SQLITE_DBNAME']}.view"))
    view.create_table()
    projection, stopping = Members(view), threading.Event()

    def follow() -> None:
        position = 0
        while not stopping.is_set():
            notifications = app.recorder.select_notifications(position + 1, 10)
            for notification in notifications:
                position = notification.id
                projection.process_event(app.mapper.to_domain_event(notification), Tracking(app.name, position))
            if not notifications:
                stopping.wait(0.01)

    @contextlib.contextmanager
    def running() -> Iterator[None]:
        thread = threading.Thread(target=follow)
        thread.start()
        yield
        stopping.set()
        thread.join()

    return app, running()


def _said(body: Any) -> tuple[str, list[str], bool, int]:
    joined = "NewMemberList" in body
    members = body["NewMemberList" if joined else "ExitMemberList"]
    return body["GroupId"], [member["Member_Account"] for member in members], joined, body["EventTime"]


CONTENDERS: dict[str, Callable[[str], Starlette]] = {"ceiling": ceiling, "upsert": upsert, "stock": stock}


def main() -> None:
    app = CONTENDERS[sys.argv[1]](os.environ.get("DATABASE_URL", ""))
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        host, port = listening.getsockname()
        print(json.dumps({"event": "serving", "address": f"http://{host}:{port}"}), file=sys.stderr, flush=True)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, server_header=False)).run([listening])


if __name__ == "__main__":
    main()
