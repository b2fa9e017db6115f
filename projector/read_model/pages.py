"""Pages of lists: each ends at a number of items, or earlier if they are large."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, TypeVar

_Item = TypeVar("_Item")

MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page has at most as many bytes, or a single item."""

MAX_EXAMINED: Final = 10_000
"""Rows that are read to find the items of a page. If that many hold too few items, the page is short, or empty."""


class Page(list[_Item]):
    """Consecutive items of a list; `is_last` if none follow them.

    The next page begins after `examined` if that is not None, and else after the last item.
    """

    def __init__(self, items: Iterable[_Item], *, is_last: bool, examined: str | None = None) -> None:
        super().__init__(items)
        self.is_last = is_last
        self.examined = examined


def take_page(items: Iterable[_Item], limit: int, size_of: Callable[[_Item], int]) -> Page[_Item]:
    """Return the first items, at most `limit`, whose sizes in bytes fit into a page; no more than the next is read."""
    rest = iter(items)
    page: list[_Item] = []
    size = 0
    for item in islice(rest, limit):
        size += size_of(item)
        if size > MAX_PAGE_BYTES and page:
            return Page(page, is_last=False)
        page.append(item)
    return Page(page, is_last=next(rest, None) is None)
