"""The callbacks that are posted: recorded payloads, unusual ids and texts, simulated traffic, and one large group.

The parts are posted in this order: `small`; `large` (not to every store); `after`, once accounts are forgotten and the
read model is replayed; `spool`, while the database is locked.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.callbacks.payloads import PAYLOADS
from tests.frozen.frozen import Request
from tests.running import SDK_APP_ID, run_cli

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

NOW = 1_767_225_600_000
"""2026-01-01T00:00:00Z, the receiver's time of the first callback; between any two pass 250 ms."""
HOUR = 3_600_000
UNREADABLE = "FieldOfTomorrow"
FORGOTTEN = ("walter/100%", "member-7")
LARGE = "@TGS#LARGE"

Callback = dict[str, Any]

IDS = [
    "100%",
    "a/b%2Fc",
    "群组🎉",
    "e\u0301 and é",
    "nul\x00inside",
    "?&=#+; ,'\"\\",
    " spaces ",
    "..",
    "x" * 96,
    "y" * 1024,
    "\u202eright to left",
    "Case",
    "case",
]


def traffic(simulated: Iterable[tuple[str, bytes]]) -> list[Request]:
    """Return all requests; `simulated` are the queries and bodies of simulated callbacks."""
    rng = random.Random(13)
    parts = {
        "small": [*_recorded(), *_callbacks(_odd(rng)), *simulated, *_raw()],
        "large": [*_callbacks(_large(rng))],
        "after": [*_callbacks(_after())],
        "spool": [*_callbacks(_spooled()), (_query("Group.CallbackAfterGroupFull"), b'{"GroupId":"spooled", no JSON')],
    }
    numbers = itertools.count()
    return [
        Request(part, NOW + next(numbers) * 250, query, body)
        for part, requests in parts.items()
        for query, body in requests
    ]


def simulated(folder: Path, **settings: str) -> list[tuple[str, bytes]]:
    """Return the callbacks that `projector simulate` posts in processes with these settings."""
    with _recorder() as (url, requests):
        options = ("--url", url, "--seed", "13", "--groups", "10", "--callbacks", "260")
        done = run_cli(
            folder / "none", "simulate", *options, "--connections", "1", "--no-check", "--into-existing", **settings
        )
    assert done.returncode == 0, done.stderr
    return requests


@contextlib.contextmanager
def _recorder() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    requests: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.path.partition("?")[2], body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    thread.join()
    server.server_close()


def _query(command: str) -> str:
    return urlencode({"SdkAppid": SDK_APP_ID, "CallbackCommand": command, "ClientIP": "1.2.3.4", "OptPlatform": "iOS"})


def _recorded() -> Iterator[tuple[str, bytes]]:
    """Yield every payload file, then those with a time again, as repeats."""
    for payload in PAYLOADS:
        yield payload.target(SDK_APP_ID), payload.body
    for payload in PAYLOADS:
        if payload.recorded and b"EventTime" in payload.body:
            yield payload.target(SDK_APP_ID), payload.body


def _callbacks(bodies: Iterable[Callback]) -> Iterator[tuple[str, bytes]]:
    for number, body in enumerate(bodies):
        content = json.dumps(body, separators=(",", ":"), ensure_ascii=number % 2 == 0)
        yield _query(body["CallbackCommand"]), content.encode()


def _callback(command: str, group_id: str, at: int | None, **fields: Any) -> Callback:
    when = {} if at is None else {"EventTime": at}
    return {"CallbackCommand": f"Group.CallbackAfter{command}", "GroupId": group_id, **when, **fields}


def _accounts(*users: str) -> list[dict[str, str]]:
    return [{"Member_Account": user} for user in users]


def _odd(rng: random.Random) -> Iterator[Callback]:
    """Yield every kind of event for every unusual id: in time, late, repeated, and without a time."""
    users = [*IDS, *FORGOTTEN]
    for number, group_id in enumerate(IDS):
        start = NOW - 20 * HOUR + number * HOUR
        a, b, c, d = rng.sample(users, 4)
        life = [
            _callback(
                "CreateGroup",
                group_id,
                start,
                Type=rng.choice(["Public", "Community", "ChatRoom", "Private"]),
                Name=f"{group_id} by {a}"[:50],
                Owner_Account=a,
                Operator_Account=a,
                MemberList=_accounts(a, b, FORGOTTEN[0]),
                UserDefinedDataList=[{"Key": group_id[:20], "Value": "\x00\u2028🎉"}],
            ),
            _callback("NewMemberJoin", group_id, start + 5, JoinType="Apply", NewMemberList=_accounts(c, d)),
            _callback(
                "NewMemberJoin", group_id, None, JoinType="Invited", Operator_Account=a, NewMemberList=_accounts(b)
            ),
            _callback("MemberFieldChanged", group_id, start + 8, Member_Account=c, Role="Admin", NameCard=f"card {d}"),
            _callback("MemberFieldChanged", group_id, start + 2, Member_Account=c, NameCard="late"),
            _callback("GroupFull", group_id, start + 9),
            _callback("MemberExit", group_id, start + 10, ExitType="Quit", ExitMemberList=_accounts(d)),
            _callback("MemberExit", group_id, start + 3, ExitType="Kicked", ExitMemberList=_accounts(c)),
            _callback("ChangeGroupOwner", group_id, start + 12, NewOwner_Account=b, OldOwner_Account=a),
            _callback("GroupInfoChanged", group_id, start + 13, Introduction=group_id, Notification="", FaceUrl=d),
            _callback("GroupInfoChanged", group_id, str(start // 1000 + 1), Name="in seconds"),  # type: ignore[arg-type]
            _callback("GroupInfoChanged", group_id, NOW + 100 * HOUR, Introduction="of the future"),
            _callback(
                "GroupAttrChanged",
                group_id,
                start + 14,
                OptionType="set",
                GroupAttr=[{"key": group_id[:9], "value": a}, {"key": "k"}],
            ),
            _callback(
                "GroupAttrChanged",
                group_id,
                start + 15,
                OptionType="modify",
                GroupAttr=[{"key": "k", "value": "v" * number}],
            ),
            _callback("GroupAttrChanged", group_id, start + 16, OptionType="delete", GroupAttr=[{"key": "k"}]),
            _callback("CreateTopic", group_id, start + 17, TopicId=f"{group_id[:90]}@TOPIC#1"),
            _callback("TopicInfoChanged", group_id, start + 18, TopicId=f"{group_id[:90]}@TOPIC#1", Name="topic"),
            _callback("TopicDestroyed", group_id, start + 19, TopicIdList=[f"{group_id[:90]}@TOPIC#1"]),
        ]
        if number % 3 == 0:
            life += [
                _callback("GroupDestroyed", group_id, start + 30, Operator_Account=a),
                _callback("CreateGroup", group_id, start + 40, Owner_Account=d, Name="again", Type="Public"),
                _callback("NewMemberJoin", group_id, start + 35, NewMemberList=_accounts(c)),
                _callback("NewMemberJoin", group_id, start + 45, NewMemberList=_accounts(FORGOTTEN[1], d)),
            ]
        if number % 3 == 1:
            life += [_callback("GroupDestroyed", group_id, None), _callback("GroupFull", group_id, None)]
        yield from life
        yield from (body for body in life[::4] if "EventTime" in body)


def _raw() -> Iterator[tuple[str, bytes]]:
    """Yield unreadable requests, some of which contain account ids, and one that a later version could read."""
    joined = "Group.CallbackAfterNewMemberJoin"
    head = b'{"CallbackCommand":"%s","GroupId":"raw","NewMemberList":' % joined.encode()
    yield _query(joined), head + b'[{"Member_Account":"lone \\ud83d surrogate"},{"Member_Account":"\\u0000"}]}'
    yield _query(joined), head + b'[{"Member_Account":"pair \\ud83d\\ude00"}],"EventTime":"1767225000123"}'
    yield _query(joined), b"\xff\xfe not UTF-8"
    yield _query(joined), b"\xff\xfe not UTF-8"
    yield _query(joined), head + b'"%s"}' % FORGOTTEN[0].encode()
    yield _query(joined), b'{"who":"%s","broken' % FORGOTTEN[1].encode()
    yield _query(joined), head + b'[{"Member_Account":"tomorrow"}],"%s":1}' % UNREADABLE.encode()
    yield _query("Group.CallbackAfterOther") + "&x=%FF", b'{"CallbackCommand":"Group.CallbackAfterYetAnother"}'


def _large(rng: random.Random) -> Iterator[Callback]:
    """Yield more than two blocks of 512 events of one group, which is dismissed and created again halfway."""
    users = [f"member-{number}" for number in range(260)]
    first = NOW - 3 * HOUR
    yield _callback(
        "CreateGroup", LARGE, first, Owner_Account=users[0], MemberList=_accounts(*users[:40]), Type="Public"
    )
    sent: list[Callback] = []
    for number in range(1_150):
        at = first + number * 1_000
        if rng.random() < 0.1:
            at -= rng.randrange(400_000)
        some = rng.sample(users, rng.choice((1, 1, 1, 2, 12)))
        command, fields = rng.choice(
            [
                *[("NewMemberJoin", {"JoinType": rng.choice(["Apply", "Invited"]), "NewMemberList": _accounts(*some)})]
                * 4,
                *[("MemberExit", {"ExitType": rng.choice(["Quit", "Kicked"]), "ExitMemberList": _accounts(*some)})] * 3,
                ("MemberFieldChanged", {"Member_Account": some[0], "Role": rng.choice(["Admin", "Member"])}),
                ("GroupInfoChanged", {"Name": f"large {number}"}),
                ("GroupAttrChanged", {"OptionType": "modify", "GroupAttr": [{"key": f"{number % 9}", "value": "v"}]}),
                ("ChangeGroupOwner", {"NewOwner_Account": some[0]}),
                *[("GroupFull", {})] * (number % 7 == 0),
            ]
        )
        timed = None if rng.random() < 0.03 else at
        sent.append(_callback(command, LARGE, timed, Operator_Account=rng.choice(users), **fields))
        yield sent[-1]
        if timed and rng.random() < 0.05:
            yield rng.choice([body for body in sent[-50:] if "EventTime" in body])
        if number == 600:
            yield _callback("GroupDestroyed", LARGE, at + 1)
            yield _callback("CreateGroup", LARGE, at + 2, Owner_Account=users[1], MemberList=_accounts(*users[:90]))


def _after() -> Iterator[Callback]:
    """Yield events of forgotten accounts, in known groups and a new group."""
    for number, group_id in enumerate(("100%", LARGE, "after")):
        at = NOW - HOUR // 2 + number
        yield _callback("NewMemberJoin", group_id, at, NewMemberList=_accounts(*FORGOTTEN, "newcomer"))
        yield _callback("MemberExit", group_id, at + 10, ExitMemberList=_accounts(FORGOTTEN[0]))
        yield _callback("GroupInfoChanged", group_id, None, Name="after")


def _spooled() -> Iterator[Callback]:
    yield _callback("CreateGroup", "spooled", NOW, Owner_Account="sid", MemberList=_accounts("sid", FORGOTTEN[0]))
    yield _callback("NewMemberJoin", "spooled", NOW + 1, NewMemberList=_accounts(FORGOTTEN[1], "群组🎉"))
    yield _callback("MemberExit", "spooled", None, ExitMemberList=_accounts("sid"))
