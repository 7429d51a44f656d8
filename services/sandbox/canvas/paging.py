"""Pages and the ``Link`` header (``lib/api.rb#paginate``, ``lib/bookmarked_collection``)."""

from __future__ import annotations

import base64
import binascii
import heapq
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode

import orjson

from services.sandbox.canvas import errors

Item = TypeVar("Item")
Sortable = tuple[str | int, ...]

DEFAULT_PER_PAGE, MAX_PER_PAGE = 10, 100
_RELATIONS = ("current", "next", "prev", "first", "last")
_BOOKMARK = "bookmark:"
_MAX_HEADER_BYTES = 6 * 1024


class Links(NamedTuple):
    """Where a list was read from: the address as the client wrote it, and its query without paging and credentials."""

    url: str
    query: Sequence[tuple[str, str]]

    def header(self, pages: Mapping[str, str], per_page: int) -> str:
        """The ``Link`` header; relations without a page are left out, and in their order those for which there is no room."""
        kept = [(name, value) for name, value in self.query if name not in ("page", "per_page", "access_token")]
        links: list[str] = []
        for relation in _RELATIONS:
            if relation in pages:
                # Kept parameters are escaped, the page is not: a bookmark reads ``page=bookmark:...``.
                text = f"{urlencode(kept)}&page={pages[relation]}&per_page={per_page}".removeprefix("&")
                links.append(f'<{self.url}?{text}>; rel="{relation}"')
        while links and sum(map(len, links)) + len(links) > _MAX_HEADER_BYTES:
            links.pop()
        return ",".join(links)


def per_page(text: str | None) -> int:
    """What the client asked for, between 1 and 100; 10 when it did not ask."""
    try:
        wanted = int(text) if text else DEFAULT_PER_PAGE
    except ValueError:
        wanted = DEFAULT_PER_PAGE
    return min(max(wanted, 1), MAX_PER_PAGE)


def by_bookmark(
    items: Sequence[Item], order: Callable[[Item], Sortable], page: str | None, size: int, links: Links
) -> tuple[list[Item], str]:
    """One page of a bookmarked list and its ``Link`` header. Pages have no numbers, no ``last`` and no ``prev``.

    The bookmark is the sort key of the last row of the page before, so rows that come and go meanwhile shift nothing.
    """
    keyed = [(order(item), item) for item in items]
    if page not in (None, "first"):
        after = _decode(str(page))
        try:
            keyed = [pair for pair in keyed if pair[0] > after]
        except TypeError as error:
            raise errors.not_found() from error
    # Only the page is put in order: a long roster is read page by page, and is not sorted anew for each.
    shown = heapq.nsmallest(size, keyed, key=operator.itemgetter(0))
    pages = {"current": page or "first", "first": "first"}
    if len(keyed) > size:
        pages["next"] = _encode(shown[-1][0])
    return [item for _, item in shown], links.header(pages, size)


def _encode(key: Sortable) -> str:
    return _BOOKMARK + base64.urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


def _decode(page: str) -> Sortable:
    """Raises 404, as upstream does for a bookmark it did not issue."""
    if not page.startswith(_BOOKMARK):
        raise errors.not_found()
    text = page.removeprefix(_BOOKMARK)
    try:
        key = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError) as error:
        raise errors.not_found() from error
    if not isinstance(key, list):
        raise errors.not_found()
    return tuple(key)


def by_number(items: Sequence[Item], page: str | None, size: int, links: Links) -> tuple[list[Item], str]:
    """One numbered page and its ``Link`` header; beyond the end the page is empty."""
    try:
        number = max(int(page), 1) if page and page != "first" else 1
    except ValueError as error:
        raise errors.not_found() from error
    last = max(-(-len(items) // size), 1)
    pages = {"current": str(number), "first": "1", "last": str(last)}
    if number < last:
        pages["next"] = str(number + 1)
    if number > 1:
        pages["prev"] = str(number - 1)
    start = (number - 1) * size
    return list(items[start : start + size]), links.header(pages, size)
