"""`projector forward`: signed, in order for each group, at least once, and nothing dead holds up the rest."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from projector.cli.forward import _endpoint
from tests.feeds.endpoint import OTHER_SECRET, SECRET, listening
from tests.feeds.test_pages import create, join, post
from tests.running import run_cli, serving, start_cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.feeds.endpoint import Endpoint
    from tests.running import Server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kind")]  # every test here starts processes

SECRETS = {"PROJECTOR_FORWARD_SECRET": f"{SECRET},{OTHER_SECRET}"}
SEED = 20261128


@contextlib.contextmanager
def forwarding(database: Path, endpoint: Endpoint, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = start_cli(database, "forward", "--to", endpoint.url, *arguments, **SECRETS)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=30)


def fed(server: Server, feed: str = "changes") -> list[dict[str, Any]]:
    head = server.get("/v1/groups").headers["Projector-Position"]
    page = server.get(f"/v1/{feed}", wait_for=head, limit=1000).json()
    found: list[dict[str, Any]] = page.get("messages", page.get("events"))
    return found


def by_group(messages: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for message in messages:
        groups.setdefault(message["group_id"], []).append(message)
    return groups


def test_every_message_is_delivered_in_the_order_of_its_group_however_often_the_forwarder_is_killed(
    tmp_path: Path,
) -> None:
    database, chance = tmp_path / "events.db", random.Random(SEED)
    with serving(database) as server, listening(lambda _: chance.choice([200, 204, 204, 500])) as endpoint:
        for number in range(40):
            create(server, f"g{number % 10}") if number < 10 else join(server, f"g{number % 10}", f"u{number}")
        expected = fed(server)
        for _ in range(4):
            with forwarding(database, endpoint) as forwarder:
                before = len(endpoint.accepted)
                endpoint.wait_until(lambda before=before: len(endpoint.accepted) > before)
                forwarder.kill()
        with forwarding(database, endpoint) as forwarder:
            last = join(server, "g0", "last")
            endpoint.wait_until(lambda: len(endpoint.messages) == len(expected) + 1)
            forwarder.terminate()
            assert forwarder.wait(timeout=30) == 0
        assert by_group(endpoint.messages) == by_group(fed(server))
        assert all(webhook_id == message["cursor"] for webhook_id, message in endpoint.accepted)
        with forwarding(database, endpoint):
            after = join(server, "g1", "after all")
            endpoint.wait_until(lambda: endpoint.accepted[-1][1]["position"] == after)
        assert [message["position"] for _, message in endpoint.accepted].count(last) == 1


def test_a_group_that_is_refused_waits_and_holds_up_no_other(tmp_path: Path) -> None:
    database, is_mended = tmp_path / "events.db", False

    def answer(message: dict[str, Any]) -> int:
        return 503 if message["group_id"] == "bad" and not is_mended else 200

    with serving(database) as server, listening(answer) as endpoint:
        create(server, "bad")
        join(server, "bad", "bob")
        create(server, "good")
        with forwarding(database, endpoint):
            endpoint.wait_until(lambda: endpoint.accepted and endpoint.refused)
            joined = join(server, "good", "bob")
            endpoint.wait_until(lambda: endpoint.accepted[-1][1]["position"] == joined)
            assert {message["group_id"] for message in endpoint.messages} == {"good"}
            is_mended = True
            endpoint.wait_until(lambda: len(endpoint.accepted) == 4)
        assert by_group(endpoint.messages) == by_group(fed(server))


def test_what_is_given_up_is_skipped_and_events_can_be_forwarded_from_now_on(tmp_path: Path) -> None:
    database, file = tmp_path / "events.db", str(tmp_path / "state")
    with serving(database) as server, listening(lambda _: 500) as endpoint:
        create(server, "g")
        position = join(server, "g", "bob")
        server.get("/v1/groups", wait_for=position)
        with forwarding(database, endpoint, "--state", file):
            endpoint.wait_until(lambda: endpoint.refused)
        endpoint.answer = lambda _: 200
        with forwarding(database, endpoint, "--state", file, "--skip", "g"):
            last = post(server, "g", "GroupDestroyed")
            endpoint.wait_until(lambda: endpoint.accepted)
        assert [message["position"] for message in endpoint.messages] == [last]
        with forwarding(database, endpoint, "--feed", "events", "--after", str(position)):
            endpoint.wait_until(lambda: len(endpoint.accepted) == 2)
        assert endpoint.accepted[-1][1] == fed(server, "events")[-1]


def test_an_endpoint_that_is_gone_ends_it_and_a_redirect_is_a_refusal(tmp_path: Path) -> None:
    database, status = tmp_path / "events.db", 307
    with serving(database) as server, listening(lambda _: status) as endpoint:
        server.get("/v1/groups", wait_for=create(server, "g"))
        with forwarding(database, endpoint) as forwarder:
            endpoint.wait_until(lambda: endpoint.refused)
            status = 410
            assert forwarder.wait(timeout=60) == 1
        assert endpoint.accepted == []


def test_two_forwarders_of_one_state_are_refused_and_so_is_one_without_a_secret(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server, listening() as endpoint:
        server.get("/v1/groups", wait_for=create(server, "g"))
        with forwarding(database, endpoint):
            endpoint.wait_until(lambda: endpoint.accepted)
            second = run_cli(database, "forward", "--to", endpoint.url, **SECRETS)
            assert (second.returncode, "another process forwards" in second.stderr) == (2, True)
        without = run_cli(database, "forward", "--to", endpoint.url)
        assert (without.returncode, "PROJECTOR_FORWARD_SECRET" in without.stderr) == (2, True)
        wrong = run_cli(database, "forward", "--to", endpoint.url, PROJECTOR_FORWARD_SECRET="whsec_short")
        assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)


def test_a_changed_history_ends_it_until_it_is_given_where_to_begin(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server, listening() as endpoint:
        server.get("/v1/groups", wait_for=create(server, "g"))
        done = run_cli(database, "forward", "--to", endpoint.url, "--after", "1-01234567-0", **SECRETS)
        assert (done.returncode, "read everything again" in done.stderr) == (1, True)
        with forwarding(database, endpoint, "--after", "latest") as forwarder:
            joined = []
            with endpoint.news:  # it begins with whatever comes after it has started
                while not endpoint.news.wait_for(lambda: endpoint.accepted, timeout=0.2):
                    joined.append(join(server, "g", f"u{len(joined)}"))
            forwarder.send_signal(signal.SIGINT)
            assert forwarder.wait(timeout=30) == 0
        assert {message["position"] for message in endpoint.messages} <= {*joined}


@pytest.mark.parametrize("url", ["http://example.com/", "ftp://localhost/", "https:///x", "example.com"])
def test_only_https_leaves_this_machine(url: str) -> None:
    with pytest.raises(Exception, match="https"):
        _endpoint(url)
