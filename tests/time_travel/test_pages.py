"""Pages of groups, of members and of a user's groups, now and in the past, end earlier if what they hold is large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from projector.read_model import pages, query_session
from projector.read_model.group_filter import GroupFilter
from projector.read_model.pages import Page, take_page
from projector.time_travel.cut import Cut
from tests.domain import facts as f
from tests.time_travel.test_time_travel import projected

if TYPE_CHECKING:
    from collections.abc import Callable

    from projector.domain.events import Event
    from projector.read_model.groups import Groups

PAGE_BYTES = 3_000
SIZES = [1_500, 0, 0, 2_000, 2_000, 10, 900, 900, 900, 900, 0, 1_999, 1, 0, 0, 0] * 3


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pages, query_session):
        monkeypatch.setattr(module, "MAX_PAGE_BYTES", PAGE_BYTES)


def walk(read: Callable[[str, int], Page[Any]], key: Callable[[Any], str], limit: int) -> list[list[Any]]:
    """Return all pages of a list."""
    found = [read("", limit)]
    while not found[-1].is_last:
        assert 0 < len(found[-1]) <= limit
        found.append(read(key(found[-1][-1]), limit))
    return [[*page] for page in found]


def events() -> list[Event]:
    """A group for each size, with a text of this size and with the user `u`, and a group with as many members."""
    names = [(f"{number:03}", size) for number, size in enumerate(SIZES)]
    return [
        *(f.profile(1, group_id=f"g{name}", introduction="é" * (size // 2)) for name, size in names),
        *(f.joined(2, "u", group_id=f"g{name}", operator="o" * min(size, 1_000)) for name, size in names),
        f.joined(3, *(f"m{name}" for name, _ in names), group_id="h"),
        *(f.changed(4, f"m{name}", group_id="h", name_card="\x01" * (size // 6)) for name, size in names),
    ]


def assert_bounded(found: list[list[Any]], size_of: Callable[[Any], int]) -> None:
    assert all(len(page) == 1 or sum(map(size_of, page)) <= PAGE_BYTES for page in found)
    assert len({*map(len, found)}) > 1, "pages with more and with less"


@pytest.mark.parametrize("limit", [7, 1_000])
@pytest.mark.usefixtures("kind", "small_pages")
def test_no_page_is_too_large_and_everything_is_on_one(limit: int) -> None:
    history = f.recorded(events())
    with projected(history) as opened:
        found = walk(lambda after, size: opened.session.groups(GroupFilter(prefix="g"), after, size), group_id, limit)
        assert [group_id(state) for page in found for state in page] == [f"g{n:03}" for n in range(len(SIZES))]
        assert_bounded(found, lambda state: len((state.introduction or "").encode()))
        moments: list[Groups] = [
            opened.session,
            opened.groups(Cut(len(history))),
            opened.groups(Cut(len(history), f.EPOCH + 4)),
        ]
        for groups in moments:
            members = walk(lambda after, size, groups=groups: groups.roster("h", after, size).members, user_id, limit)
            assert [user_id(row) for page in members for row in page] == [f"m{n:03}" for n in range(len(SIZES))]
            assert_bounded(members, lambda row: 6 * len(msgspec.json.decode(row)["name_card"]))
            rows = walk(lambda after, size, groups=groups: groups.groups_of("u", after, size), group_id, limit)
            assert [group_id(row) for page in rows for row in page] == [f"g{n:03}" for n in range(len(SIZES))]


def group_id(row: Any) -> str:
    return row.group_id  # type: ignore[no-any-return]


def user_id(row: str) -> str:
    return msgspec.json.decode(row)["user_id"]  # type: ignore[no-any-return]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(
    ("sizes", "limit", "expected", "is_last"),
    [
        ([], 5, 0, True),
        ([1, 1], 2, 2, True),
        ([1, 1, 1], 2, 2, False),
        ([PAGE_BYTES, 1], 5, 1, False),
        ([PAGE_BYTES - 1, 1, 1], 5, 2, False),
        ([PAGE_BYTES - 1, 1], 5, 2, True),
        ([PAGE_BYTES * 9], 5, 1, True),
        ([PAGE_BYTES * 9, 1], 5, 1, False),
        ([1, PAGE_BYTES * 9, 1], 5, 1, False),
    ],
)
def test_a_page_ends_at_its_limit_or_before_the_item_that_does_not_fit_and_has_one_in_any_case(
    sizes: list[int], limit: int, expected: int, is_last: bool
) -> None:
    rest = iter(sizes)
    page = take_page(rest, limit, lambda size: size)
    assert (page, page.is_last) == (sizes[:expected], is_last)
    assert len([*rest]) >= len(sizes) - expected - 1, "only the next is read"
