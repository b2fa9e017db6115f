"""Stores written by released versions: this version serves, verifies and replays them, with the same results."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest

from tests.frozen.frozen import Connection, differing, rows, without_new_fields
from tests.kinds import copied, generations, url_of
from tests.processes.waiting import until
from tests.running import assert_no_traceback, run_cli, serving

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.frozen.frozen import Frozen
    from tests.running import Server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes


NTH = {("plain", "sqlite"): 1, ("plain", "postgresql"): 3}
"""Every response is compared on one store, every nth again on others."""


class Store(NamedTuple):
    """An unpacked frozen store; `seen` is its entry in the manifest."""

    name: str
    database: Path
    seen: dict[str, Any]

    @property
    def settings(self) -> dict[str, str]:
        settings: dict[str, str] = self.seen["settings"]
        return settings

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_cli(self.database, *arguments, **self.settings)


@pytest.fixture(scope="module", params=["plain", "compressed", "encrypted"])
def frozen(kind: str, version: Frozen, request: pytest.FixtureRequest, tmp_path_factory: Any) -> Store:
    folder = tmp_path_factory.mktemp(request.param)
    return Store(request.param, version.unpack(request.param, folder), version.store(request.param))


@pytest.fixture
def store(frozen: Store, tmp_path: Path) -> Store:
    """A copy that the test may change."""
    return frozen._replace(database=copied(frozen.database, tmp_path / "copy"))


@pytest.fixture(scope="module")
def server(frozen: Store, tmp_path_factory: Any) -> Iterator[Server]:
    database = copied(frozen.database, tmp_path_factory.mktemp("served") / "copy")
    before = {*generations(database)}
    with serving(database, **frozen.settings) as server:
        until(lambda: server.get("/readyz").status_code == 200, of=server)
        yield server
        assert_no_traceback(server)
    assert len({*generations(database)} - before) == 1, "one read model was built"


only_plain = pytest.mark.parametrize("frozen", ["plain"], indirect=True)


def test_every_response_is_the_same_byte_for_byte(version: Frozen, kind: str, frozen: Store, server: Server) -> None:
    nth = NTH.get((frozen.name, kind), 10)
    assert differing(server, version.responses(frozen.seen["traffic"])[::nth]) == []


def test_a_cached_response_is_still_current(version: Frozen, frozen: Store, server: Server) -> None:
    cached = [response for response in version.responses(frozen.seen["traffic"]) if "ETag" in response["headers"]]
    with Connection(server) as connection:
        for response in cached[::40]:
            again = connection.get(response["url"], **{"If-None-Match": response["headers"]["ETag"]})
            if without_new_fields(again) == again:
                assert (again["status"], again["body"]) == (304, "")


@only_plain
def test_the_openapi_document_is_the_same_except_for_its_texts_and_what_is_new(version: Frozen, server: Server) -> None:
    frozen = json.loads((version.folder / "openapi.json").read_text())
    now = server.get("/openapi.json").json()
    for document in (frozen, now):
        del document["info"]["version"]
    for part in ("paths", "components"):
        now[part] = without_what_is_new(now[part], frozen[part])
    assert without_texts(now) == without_texts(frozen)


def without_what_is_new(now: Any, frozen: Any) -> Any:
    """Remove new entries of objects, new parameters and names, and new choices of a schema that had one."""
    if isinstance(now, dict) and isinstance(frozen, dict):
        if frozen in now.get("anyOf", ()):
            return frozen
        return {name: without_what_is_new(value, frozen[name]) for name, value in now.items() if name in frozen}
    if isinstance(now, list) and all(isinstance(item, dict) and "name" in item for item in now):
        known = {item["name"]: item for item in frozen}
        return [without_what_is_new(item, known[item["name"]]) for item in now if item["name"] in known]
    if isinstance(now, list) and all(isinstance(item, str) for item in now):
        return [item for item in now if item in frozen]
    return now


def without_texts(document: Any) -> Any:
    """Remove descriptions, summaries and titles, but not properties of schemas with these names."""
    if isinstance(document, list):
        return [without_texts(item) for item in document]
    if not isinstance(document, dict):
        return document
    return {
        name: without_texts(value)
        for name, value in document.items()
        if not (name in ("description", "summary", "title") and isinstance(value, str))
    }


def test_it_verifies_against_the_frozen_digest_and_a_rebuilt_read_model_is_the_same(store: Store) -> None:
    head = store.seen["head"]
    assert store.cli("replay", "--if-needed").returncode == 0
    before = generations(store.database)
    verified = store.cli("verify", "--expect", store.seen["digest"])
    assert verified.returncode == 0, verified.stdout
    assert f"digest: {store.seen['digest']}" in verified.stdout.splitlines()
    compared = verified.stdout.splitlines()[-1]
    assert (compared.startswith(f"position {head}: "), "nothing to compare" in compared) == (True, False)
    replayed = store.cli("replay")
    assert (replayed.returncode, replayed.stdout) == (0, compared + "\n")
    assert generations(store.database) != before


@only_plain
def test_once_built_a_check_finds_no_difference_and_nothing_needs_to_be_rebuilt(store: Store) -> None:
    frozen = {*generations(store.database)}
    assert store.cli("replay", "--if-needed").returncode == 0
    built = {*generations(store.database)} - frozen
    checked = store.cli("replay", "--check", "--jobs", "2")
    assert (checked.returncode, checked.stdout.count("\n")) == (0, 1), checked.stdout
    assert "nothing to compare" not in checked.stdout
    assert store.cli("replay", "--if-needed").returncode == 0
    assert ({*generations(store.database)} - frozen, len(built)) == (built, 1)


@only_plain
def test_read_models_of_the_old_schema_are_kept_until_a_later_replay_finds_them_unused(store: Store) -> None:
    frozen = {*generations(store.database)}
    assert len(frozen) == 2
    built = store.cli("replay")
    assert (built.returncode, "nothing to compare" in built.stdout) == (0, True)
    assert frozen < {*generations(store.database)}
    back = store.cli("replay", "--rollback")
    assert (back.returncode, "no previous read model" in back.stderr) == (2, True)
    assert frozen.isdisjoint(generations(store.database))
    assert store.cli("replay", "--check").returncode == 0


@only_plain
def test_the_frozen_read_model_is_rebuilt_once_and_gives_the_same_responses(version: Frozen, store: Store) -> None:
    before = generations(store.database)
    built = set()
    for _ in range(2):
        with serving(store.database) as server:
            until(lambda server=server: server.get("/readyz").status_code == 200, of=server)
            assert differing(server, version.responses("full")[::30]) == []
        built |= {*generations(store.database)} - {*before}
    assert len(built) == 1
    assert run_cli(store.database, "replay", "--check").returncode == 0


@only_plain
def test_its_status_is_unchanged(store: Store) -> None:
    assert store.cli("replay", "--if-needed").returncode == 0
    status = store.cli("status", "--json")
    assert status.returncode == 0, status.stdout
    seen, now = dict(store.seen["status"]), json.loads(status.stdout)
    (projection,) = now.pop("projections").values()
    assert [*seen.pop("projections").values()] == [projection] * 4, "four projections have become one"
    assert seen.items() <= now.items()


def test_quarantined_callbacks_can_be_shown_and_retried(version: Frozen, kind: str, store: Store) -> None:
    entries = quarantined(store, kind)
    (readable,) = [entry for entry in entries if version.manifest["unreadable"] in entry[-1]]
    (truncated,) = [entry for entry in entries if entry[-1] == "not JSON: Input data was truncated"]
    shown = store.cli("quarantine", "show", truncated[0]).stdout
    pseudonym = store.seen["forgotten"]["member-7"]
    assert shown.endswith(f'\n{{"who":"{pseudonym}","broken\n')

    assert store.cli("quarantine", "retry").returncode == 1, "all others are still unreadable"
    (event,) = map(json.loads, store.cli("events", "--after", str(store.seen["head"])).stdout.splitlines())
    assert (event["type"], event["group_id"], event["recorded_at"]) == ("MembersJoined", "raw", readable[1])


@only_plain
def test_the_quarantine_can_be_listed_and_entries_dropped(kind: str, store: Store) -> None:
    entries = quarantined(store, kind)
    listed = store.cli("quarantine", "list").stdout.splitlines()
    assert [line.split("  ") for line in listed] == entries
    assert store.cli("quarantine", "drop", *(entry[0] for entry in entries[1:])).returncode == 0
    assert store.cli("quarantine", "list").stdout.splitlines() == listed[:1]


def quarantined(store: Store, kind: str) -> list[list[str]]:
    """The id, time, number of deliveries, command and reason of each entry."""
    return [line.split("  ") for line in store.seen["quarantine"][kind]]


def test_the_spool_is_forwarded_with_pseudonyms_for_forgotten_accounts(
    version: Frozen, frozen: Store, store: Store, tmp_path: Path
) -> None:
    spool = shutil.copytree(frozen.database.parent / "spool", tmp_path / "spool") / "projector.spool"
    spooled = [request for request in version.requests(store.seen["traffic"]) if request.part == "spool"]
    events, head = store.seen["spool"]["events"], store.seen["head"]
    first, second = store.seen["forgotten"].values()
    with serving(store.database, **store.settings, PROJECTOR_SPOOL_PATH=str(spool)) as server:
        until(lambda: server.get("/readyz").json()["spool"]["events"] == 0, of=server)
        assert [*server.members("spooled", wait_for=head + events)] == [first, second, "群组🎉"]
        forwarded = server.get("/v1/events", after=head).json()["events"]
        assert [event["type"] for event in forwarded] == ["GroupCreated", "MembersJoined", "MembersLeft"]
        shown = json.dumps(forwarded)
        assert [name in shown for name in (first, second, *store.seen["forgotten"])] == [True, True, False, False]
        with Connection(server) as connection:
            again = [connection.post(request) for request in spooled[:2]]
        assert [repeat.position for repeat in again] == [head + 1, head + 2]
        assert server.get("/v1/users/member-7/groups").status_code == 404
    quarantine = store.cli("quarantine", "list").stdout.splitlines()
    assert len(quarantine) == store.seen["status"]["quarantine"] + store.seen["spool"]["unreadable"]
    added = store.cli("quarantine", "show", quarantine[-1].split()[0]).stdout
    assert added.endswith(f"\n{spooled[-1].body.decode()}\n")


@only_plain
def test_a_forgotten_account_is_recorded_under_the_same_pseudonym(store: Store) -> None:
    account, pseudonym = next(iter(store.seen["forgotten"].items()))
    joined = {"CallbackCommand": "Group.CallbackAfterNewMemberJoin", "GroupId": "another"}
    with serving(store.database, **store.settings) as server:
        position = int(
            server.post(joined | {"NewMemberList": [{"Member_Account": account}]}).headers["Projector-Position"]
        )
        assert [*server.members("another", wait_for=position)] == [pseudonym]
        again = store.cli("forget", "--yes", account)
        assert (again.returncode, pseudonym in again.stdout) == (0, True)
        assert [*server.members("another")] == [pseudonym]


@only_plain
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_an_append_with_the_sql_of_an_older_process_still_works(store: Store) -> None:
    assert store.cli("replay", "--if-needed").returncode == 0, "this version must be able to open the database"
    statement = (
        "SELECT at_position, is_repeated FROM append_to_groups(%b::text[], %b::text[], %b::bytea[], %b::bytea[], %s)"
    )
    ((group_id, topic, state),) = rows(
        store.database, "SELECT originator_id, topic, state FROM stored_events WHERE notification_id = 1"
    )
    ((forgotten,),) = rows(store.database, "SELECT MAX(id) FROM forgotten")
    head = store.seen["head"]
    twice = ([group_id] * 2, [topic] * 2, [bytes(state)] * 2, [b"an identity of its own", None])
    with psycopg.connect(url_of(store.database), autocommit=True) as server:
        assert server.execute(statement, (*twice, 0)).fetchall() == [], "the pseudonyms of the process are out of date"
        appended = server.execute(statement, (*twice, forgotten)).fetchall()
        assert appended == [(head + 1, False), (head + 2, False)]
        once = ([group_id], [topic], [bytes(state)], [b"an identity of its own"])
        assert server.execute(statement, (*once, forgotten)).fetchall() == [(head + 1, True)]
    assert store.cli("verify", "--log-only", "--expect", store.seen["digest"]).returncode == 0
