"""Pages and Link headers."""

from __future__ import annotations

import re

import pytest

from services.sandbox.canvas.errors import Refusal
from services.sandbox.canvas.paging import Links, by_bookmark, by_number, per_page

LINKS = Links(
    "http://canvas.test/api/v1/things", [("state[]", "a b"), ("page", "old"), ("access_token", "secret"), ("per_page", "3")]
)


def relations(header: str) -> dict[str, str]:
    return {name: url for url, name in re.findall(r'<([^>]*)>; rel="(\w+)"', header)}


@pytest.mark.parametrize(
    ("asked", "given"), [(None, 10), ("", 10), ("0", 1), ("-3", 1), ("1", 1), ("100", 100), ("101", 100), ("x", 10)]
)
def test_the_page_size_stays_within_bounds(asked: str | None, given: int) -> None:
    assert per_page(asked) == given


def page_of(text: str) -> str:
    found = re.search(r"[?&]page=([^&]*)", text)
    assert found
    return found[1]


def order(item: int) -> tuple[str | int, ...]:
    return "Type", "name, same", item


def test_bookmarks_lead_through_every_row_once() -> None:
    items, page, seen = [5, 3, 1, 4, 2], "first", []
    for expected in ([1, 2], [3, 4], [5]):
        shown, header = by_bookmark(items, order, page, 2, LINKS)
        assert shown == expected
        assert set(relations(header)) - {"next"} == {"current", "first"}, "no prev and no last"
        seen += shown
        page = page_of(relations(header)["next"]) if "next" in relations(header) else ""
    assert page == ""
    assert seen == sorted(items)


def test_a_row_that_goes_away_shifts_nothing() -> None:
    shown, header = by_bookmark([1, 2, 3, 4], order, None, 2, LINKS)
    after, _ = by_bookmark([2, 3, 4], order, page_of(relations(header)["next"]), 2, LINKS)
    assert (shown, after) == ([1, 2], [3, 4])


def test_links_keep_the_query_but_never_the_token() -> None:
    _, header = by_bookmark([1], order, None, 3, LINKS)
    assert relations(header)["current"] == "http://canvas.test/api/v1/things?state%5B%5D=a+b&page=first&per_page=3"
    assert "secret" not in header


@pytest.mark.parametrize("page", ["2", "bookmark:", "bookmark:!!", "bookmark:e30", "next"])
def test_a_bookmark_that_was_never_issued_is_not_found(page: str) -> None:
    with pytest.raises(Refusal) as caught:
        by_bookmark([1, 2], order, page, 1, LINKS)
    assert caught.value.status == 404


def test_numbered_pages_know_their_neighbours_in_upstream_order() -> None:
    shown, header = by_number([1, 2, 3, 4, 5], "2", 2, LINKS)
    assert shown == [3, 4]
    assert list(relations(header)) == ["current", "next", "prev", "first", "last"]
    assert [page_of(url) for url in relations(header).values()] == ["2", "3", "1", "1", "3"]


def test_a_numbered_page_beyond_the_end_is_empty() -> None:
    shown, header = by_number([1], "9", 2, LINKS)
    assert shown == []
    assert "next" not in relations(header)
