"""Limits on values: what a group keeps is bounded, and is the same in any order and with any repetition."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projector.domain import limits, profile
from projector.domain.events import concerns_group
from projector.domain.profile import Profile
from tests import oracle, shown
from tests.domain import facts as f
from tests.domain.facts import GROUP
from tests.domain.strategies import crowded_histories, deliveries
from tests.processes.campaign import rounds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from projector.domain.events import Event, Recorded


def evidence(history: Iterable[Recorded], group_id: str) -> Profile:
    known = Profile()
    for recorded in history:
        if recorded.event.group_id == group_id and concerns_group(recorded.event):
            known = profile.evolve(known, recorded)
    return known


def shown_in_any_order(*events: Event) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the group and its members; every order of arrival must lead to what the oracle says."""
    for arrivals in permutations(f.recorded(events)):
        group, members = shown.folded(list(arrivals))[GROUP]
        assert (group, members) == oracle.everything(oracle.facts(arrivals))[GROUP]
    return group, members


def keys(first: int, count: int) -> dict[str, str]:
    return {f"k{number:03}": "v" for number in range(first, first + count)}


@settings(deadline=None, max_examples=rounds(300))
@given(st.data())
def test_maps_keep_the_keys_with_the_newest_writes_in_any_order_with_any_repetition(data: st.DataObject) -> None:
    history = data.draw(crowded_histories())
    expected = oracle.everything(oracle.facts(history))
    delivered = data.draw(deliveries(history))
    assert shown.folded(delivered) == expected
    for group_id in expected:
        in_order, as_delivered = evidence(history, group_id), evidence(delivered, group_id)
        assert in_order == as_delivered
        assert len(in_order.custom_fields) <= limits.CUSTOM_FIELDS.keys
        assert len(in_order.attributes) <= limits.ATTRIBUTES.keys


def test_a_deletion_takes_the_place_of_the_key_written_longest_ago_which_never_comes_back() -> None:
    most = limits.ATTRIBUTES.keys
    group, _ = shown_in_any_order(
        f.attributes(1, "modify", old="v"),
        f.attributes(2, "modify", **keys(0, most - 1)),
        f.attributes(3, "delete", gone="v"),
        f.attributes(4, "delete", **keys(0, 2)),
    )
    assert group["attributes"] == keys(2, most - 3)


def test_a_key_that_was_dropped_is_kept_again_when_it_is_written_again() -> None:
    most = limits.CUSTOM_FIELDS.keys
    group, _ = shown_in_any_order(
        f.profile(1, custom_fields={"old": "v"}),
        f.profile(2, custom_fields=keys(0, most)),
        f.profile(3, custom_fields={"old": "w"}),
    )
    assert group["custom_fields"] == keys(1, most - 1) | {"old": "w"}


def test_a_new_set_of_attributes_has_all_places() -> None:
    group, _ = shown_in_any_order(
        f.attributes(1, "delete", **keys(0, limits.ATTRIBUTES.keys)),
        f.attributes(2, "set", **keys(50, limits.ATTRIBUTES.keys)),
    )
    assert group["attributes"] == keys(50, limits.ATTRIBUTES.keys)


@pytest.mark.parametrize("field", ["name", "introduction", "notification", "face_url"])
def test_a_text_that_is_too_large_counts_as_null_until_the_next(field: str) -> None:
    largest = "é" * (limits.MAX_BYTES[field] // 2)
    for text, expected in ((largest[1:], largest[1:]), (largest, largest), (largest + "x", None)):
        group, _ = shown_in_any_order(f.profile(1, **{field: "before"}), f.profile(2, **{field: text}))
        assert group[field] == expected
    wide = "\U0001f600" * (limits.MAX_BYTES[field] // 4)
    assert shown_in_any_order(f.profile(1, **{field: wide}))[0][field] == wide
    assert shown_in_any_order(f.profile(1, **{field: wide + "\U0001f600"}))[0][field] is None
    group, _ = shown_in_any_order(f.profile(1, **{field: largest * 2}), f.profile(2, **{field: "after"}))
    assert group[field] == "after"


@pytest.mark.parametrize(
    ("map_name", "limit"), [("custom_fields", limits.CUSTOM_FIELDS), ("attributes", limits.ATTRIBUTES)]
)
def test_a_map_value_that_is_too_large_counts_as_null_and_a_key_that_is_too_large_as_absent(
    map_name: str, limit: limits.MapLimit
) -> None:
    def write(at: int, **values: str) -> Event:
        if map_name == "attributes":
            return f.attributes(at, "modify", **values)
        return f.profile(at, custom_fields=values)

    key, value = "é" * (limit.key_bytes // 2), "é" * (limit.value_bytes // 2)
    group, _ = shown_in_any_order(
        write(1, **{key: value, "a": "before", "b": "v"}), write(2, a=value + "x", **{key + "x": "v"})
    )
    assert group[map_name] == {key: value, "b": "v"}


def test_types_owners_operators_roles_and_name_cards_that_are_too_large_count_as_null() -> None:
    account = "é" * (limits.MAX_ID_BYTES // 2)
    group, members = shown_in_any_order(
        f.created(1, "ann", group_type="Public", owner="bob", operator=account + "x"),
        f.joined(2, "cyd", operator=account),
        f.changed(3, "ann", role="Admin", name_card="n" * 2_000),
        f.changed(4, "cyd", role="Admin", name_card="n"),
        f.changed(5, "cyd", role="Admin" * 9, name_card="n" * 2_001),
        f.owned(6, account + "x", group_type="T" * 41),
    )
    assert (group["type"], group["owner"]) == (None, None)
    assert shown_in_any_order(f.filled(0, group_type="T" * 40))[0]["type"] == "T" * 40
    shown_fields = ("role", "name_card", "operator")
    assert [[members[user][field] for field in shown_fields] for user in ("ann", "bob", "cyd")] == [
        ["Admin", "n" * 2_000, None],
        ["Member", None, None],
        ["Member", None, account],
    ]


def test_the_values_of_an_event_that_are_too_large_are_counted() -> None:
    small = f.created(0, "ann", name="n" * 2_000, group_type="Public", custom_fields={"k" * 64: "v" * 2_048})
    assert limits.count_oversized(small) == 0
    large = f.created(
        0, "ann", name="n" * 2_001, operator="o" * 1_025, custom_fields={"k" * 65: "", "k": "é" * 1_025, "l": ""}
    )
    assert limits.count_oversized(large) == 4
    assert limits.count_oversized(f.changed(0, "ann", name_card="é" * 1_001, role="r" * 41)) == 2
    assert limits.count_oversized(f.attributes(0, "set", a="v" * 8_193, b="v", c="v")) == 1


def test_the_largest_profile_fits_into_a_page_even_if_every_byte_is_escaped() -> None:
    """A page has 4 MiB or one group, and 16 MiB are sent together."""
    nul = "\x00"

    def entries(limit: limits.MapLimit) -> dict[str, str]:
        return {f"{number:03}".ljust(limit.key_bytes, nul): nul * limit.value_bytes for number in range(limit.keys)}

    texts = {field: nul * limits.MAX_BYTES[field] for field in ("name", "introduction", "notification", "face_url")}
    group, _ = shown_in_any_order(
        f.profile(1, **texts, custom_fields=entries(limits.CUSTOM_FIELDS)),
        f.attributes(2, "set", **entries(limits.ATTRIBUTES)),
    )
    assert {*map(len, (group["custom_fields"], group["attributes"]))} == {160, 128}
    assert len(msgspec.json.encode(group)) < 12 * 1024 * 1024
