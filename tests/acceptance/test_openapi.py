"""The server is driven from its own OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.processes.campaign import rounds
from tests.running import serving

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tests.running import Server

pytestmark = pytest.mark.usefixtures("kind")

ROUTES = 12
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
EVENTS = 6


@pytest.fixture(scope="module", params=["", "secret"], ids=["open", "with a token"])
def town(kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    database = tmp_path_factory.mktemp("town") / "events.db"
    with serving(database, PROJECTOR_READ_TOKENS=request.param) as server:
        for group_id in ("0", "a/b", "@TGS#1"):
            about = {"GroupId": group_id, "Type": "Public"}
            creation = {"CallbackCommand": "Group.CallbackAfterCreateGroup", "Owner_Account": "0", "Name": "n"}
            server.post({**about, **creation}).raise_for_status()
            server.post({**about, "CallbackCommand": "Group.CallbackAfterGroupFull"}).raise_for_status()
        if request.param:
            server.client.headers["Authorization"] = f"Bearer {request.param}"
        yield server
        assert not [line for line in server.raw_log if "Traceback" in line]


def may_be_refused(names: Collection[str]) -> bool:
    """Tell whether valid parameters may be refused: JSON Schema cannot express how they depend on each other."""
    return "cursor" in names or {"at", "position"} <= set(names) or {"from", "to"} <= set(names)


@pytest.mark.slow
def test_nothing_the_document_allows_or_forbids_finds_a_fault(town: Server) -> None:
    schema = schemathesis.openapi.from_dict(town.get("/openapi.json").json())
    headers = {name: value for name, value in (("Authorization", town.client.headers.get("Authorization")),) if value}
    tested = []
    for result in schema.get_all_operations():
        operation = result.ok()
        tested.append(operation.path)
        has_parameters = bool([*operation.iter_parameters()])
        for mode in MODES if has_parameters else MODES[:1]:
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=20 if headers else rounds(40),
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def attack(case: schemathesis.Case) -> None:
                for name in {"wait_for", "position"} & case.query.keys():
                    if str(case.query[name]).isdigit():
                        case.query[name] = min(int(case.query[name]), EVENTS)
                if str(case.query.get("wait", "")).isdigit():
                    case.query["wait"] = min(int(case.query["wait"]), 1)
                refused = [positive_data_acceptance] if may_be_refused(case.query.keys()) else []
                case.call_and_validate(base_url=town.url, headers=headers, excluded_checks=refused)

            attack()
    assert len(tested) == ROUTES
