"""The client against the fake, each written from the vendor's documentation."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from projector.clock import now_ms
from projector.reconciliation.rest_client import RestClient, VendorGroup
from projector.reconciliation.rest_errors import Gone, NotForType, Refused, TooLarge
from projector.simulator.vendor.groups import VendorGroups
from tests.running import SDK_APP_ID
from tests.vendor import ADMINISTRATOR, KEY, FakeVendor, imported, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

PUBLIC, COMMUNITY, LIVE = "@TGS#1", "@TGS#_@TGS#c", "@TGS#3"


@asynccontextmanager
async def asking(fake: FakeVendor, **options: Any) -> AsyncIterator[RestClient]:
    given = {"sdk_app_id": SDK_APP_ID, "administrator": ADMINISTRATOR, "key": KEY, "rate": 1_000, **options}
    async with RestClient(fake.url, **given) as client:
        client._list_pace = client._pace  # the fake is told to allow it
        yield client


def ask(fake: FakeVendor, question: Callable[[RestClient], Awaitable[Any]], **options: Any) -> Any:
    async def answer() -> Any:
        async with asking(fake, **options) as client:
            return await question(client)

    return asyncio.run(answer())


def groups() -> VendorGroups:
    known = VendorGroups()
    known.add(PUBLIC, imported("ann", "bob", limit=200, custom_fields={"k": "v"}, attributes={"a": "1"}))
    known.add(COMMUNITY, imported(*(f"user{number:03}" for number in range(450)), kind="Community"))
    known.add(LIVE, imported("ann", "bob", kind="AVChatRoom"))
    return known


def test_a_group_is_read_with_its_members_and_every_field() -> None:
    with vendor(groups(), pads_roles=True, newer_names=True, has_error_info=False) as fake:
        began = now_ms()
        found = ask(fake, lambda client: client.groups([PUBLIC, LIVE, "gone"]))
    group = found[PUBLIC]
    assert isinstance(group, VendorGroup)
    assert (group.type, group.owner, group.app_id, group.member_limit) == ("Public", "ann", SDK_APP_ID, 200)
    assert (group.created_at, group.member_count, group.custom_fields) == (1_600_000_000_000, 2, {"k": "v"})
    assert [(row.user_id, row.joined_at, row.role, row.name_card) for row in group.roster] == [
        ("ann", 1_600_000_000_000, "Owner", ""),
        ("bob", 1_600_000_000_000, "Member", ""),
    ]
    assert began - 1_000 <= group.tau <= now_ms()
    assert "MemberList" not in group.answer
    assert (found[LIVE].roster, found[LIVE].member_limit) == (None, None)
    assert isinstance(found["gone"], Gone)


def test_a_filtered_answer_has_the_custom_fields_asked_for_and_no_members() -> None:
    with vendor(groups()) as fake:
        group = ask(fake, lambda client: client.groups([PUBLIC], custom_fields=["k", "other"]))[PUBLIC]
    assert (group.custom_fields, group.roster, group.texts["name"], group.member_count) == ({"k": "v"}, None, "", 2)


def test_the_list_is_read_to_its_end() -> None:
    known = VendorGroups()
    for number in range(25):
        known.add(f"g{number}", imported("ann"))

    async def listed(client: RestClient) -> list[str]:
        found, cursor = [], 0
        while True:
            page = await client.list_groups(cursor)
            assert page.total == 25
            found += page.group_ids
            if page.next is None:
                return found
            assert page.next > 2**32
            cursor = page.next

    with vendor(known) as fake, pytest.MonkeyPatch.context() as patch:
        patch.setattr("projector.reconciliation.rest_client._LIST_LIMIT", 10)
        assert sorted(ask(fake, listed)) == sorted(f"g{number}" for number in range(25))


@pytest.mark.parametrize("group_id", [PUBLIC, COMMUNITY])
def test_a_roster_is_read_by_pages_to_its_end(group_id: str) -> None:
    async def read(client: RestClient) -> list[str]:
        users, cursor = [], None
        while True:
            page = await client.roster_page(group_id, cursor, is_community=group_id == COMMUNITY)
            users += [row.user_id for row in page.rows]
            if (cursor := page.next) is None:
                return users

    with vendor(groups()) as fake:
        known = fake.groups.find(group_id)
        assert known
        assert sorted(ask(fake, read)) == sorted(known.members)


def test_who_is_no_member_is_said_by_name() -> None:
    with vendor(groups()) as fake:
        absent, _ = ask(fake, lambda client: client.absent(PUBLIC, ["ann", "cyd"]))
        assert absent == {"cyd"}
        assert ask(fake, lambda client: client.attributes(PUBLIC))[0] == {"a": "1"}


def test_groups_that_are_gone_and_types_without_a_roster_are_told_apart() -> None:
    with vendor(groups()) as fake:
        for question, error in [
            (lambda client: client.roster("gone"), Gone),
            (lambda client: client.roster(LIVE), NotForType),
            (lambda client: client.absent(LIVE, ["ann"]), NotForType),
        ]:
            with pytest.raises(error):
                ask(fake, question)


def test_an_answer_that_is_too_large_is_said_to_be_so() -> None:
    known = VendorGroups()
    known.add("large", imported(*(f"user{number:024}" for number in range(6_000))))
    with vendor(known) as fake, pytest.raises(TooLarge):
        ask(fake, lambda client: client.groups(["large"]))


@pytest.mark.parametrize("fault", ["status 502", "HTML", "truncated", "cut", 60008, 10002, 60007, 60011])
def test_a_fault_that_passes_is_tried_again(fault: Any) -> None:
    with vendor(groups()) as fake:
        fake.before = lambda request: fault if request.number == 1 else None
        assert PUBLIC in ask(fake, lambda client: client.groups([PUBLIC]))
        assert len(fake.requests) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"key": "wrong"}, "70009 UserSig is invalid: check PROJECTOR_REST_KEY"),
        ({"administrator": "ann"}, "10007 operator is not super manager: PROJECTOR_REST_ADMIN is not an administrator"),
        ({"sdk_app_id": 1}, "70014 sdkappid does not match: the signature is for another app"),
    ],
)
def test_wrong_settings_stop_with_what_to_do_and_without_the_key(
    options: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with vendor(groups()) as fake, caplog.at_level(logging.INFO), pytest.raises(Refused) as refusal:
        ask(fake, lambda client: client.list_groups(0), **options)
    assert says in str(refusal.value)
    assert len(fake.requests) <= 2
    assert "usersig" not in str(refusal.value)
    assert KEY not in str(refusal.value)


@pytest.mark.parametrize("code", [60021, 60010, 60020, 70020])
def test_other_refusals_say_what_to_do(code: int) -> None:
    with vendor(groups()) as fake:
        fake.before = lambda _: code
        with pytest.raises(Refused, match=f"{code} simulated: "):
            ask(fake, lambda client: client.list_groups(0))


@pytest.mark.parametrize("skew_ms", [-90_000, 0, 90_000])
def test_moments_are_by_the_vendors_clock_and_never_after_it_looked(skew_ms: int) -> None:
    async def taus(client: RestClient) -> list[int]:
        return [(await client.groups([PUBLIC]))[PUBLIC].tau for _ in range(5)]

    with vendor(groups(), skew_ms=skew_ms) as fake:
        looked: list[int] = []
        fake.before = lambda request: looked.append(request.at_ms)
        for tau, at in zip(ask(fake, taus), looked, strict=True):
            assert at - 2_000 <= tau <= at
