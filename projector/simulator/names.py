"""Ids and texts as users and the vendor choose them."""

import re
from typing import Final

ADMINISTRATOR: Final = "administrator"
"""The operator of changes made by the app's own backend."""

TITLES: Final = (
    "Weekend hikers",
    "周末徒步 🥾",
    "Crème brûlée & co.",
    "Equipe «Ops»",
    "Ночная смена",
    "42",
    'The "best"',
)

TEXTS: Final = (
    "Be kind.",
    "Meet at 7 pm,\nbring water.",
    "公告：明天上午十点开会",
    "100% of us agree; see https://example.com/?a=1&b=2#c",
    "¡Hola! \t tabs, \\ backslashes and 'quotes'",
    "👩‍👩‍👧‍👦 " * 8,
    "",
)

FIELD_KEYS: Final = ("level", "city", "UserDefined1", "UserDefined2", "vip_until")
"""Keys of custom fields and of attributes."""

_RUN: Final = re.compile(r"sim[0-9a-f]{6,}x[0-9]+")

_CUSTOM_GROUP_IDS: Final = ("class_{}", "{}", "Team {} / Europe", "100%25 of {}", "#{}?", "a+b&c={}", "..{};~", '"{}"')
_USER_IDS: Final = ("{}", "user_{:06}", "PLN{:X}k", "e104c7f8-c31c-{:04x}")


def run(started_s: int, seed: int) -> str:
    """Return what distinguishes the groups of one simulation from all others: letters and digits."""
    return f"sim{started_s:x}x{seed}"


def is_simulated(group_id: str) -> bool:
    """Tell whether a group's id is one that a simulation made up."""
    return _RUN.search(group_id) is not None


def group_id(type_: str, run: str, number: int, *, custom: bool) -> str:
    """Return the id of a group of a run, as if made by the vendor or chosen by the app."""
    if type_ == "Community":
        return f"@TGS#_club {run} {number}" if custom else f"@TGS#_@TGS#c{run}{number:04X}"
    if custom:
        return _CUSTOM_GROUP_IDS[number % len(_CUSTOM_GROUP_IDS)].format(f"{run}-{number}")
    return f"@TGS#2{run}{number:04X}"


def user_id(number: int) -> str:
    return _USER_IDS[number % len(_USER_IDS)].format(number)
