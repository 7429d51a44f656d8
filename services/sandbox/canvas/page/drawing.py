"""The board as HTML. Elements are built, never pasted together, so that no name can be taken for markup."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from lxml import html
from lxml.builder import ElementMaker

from services.sandbox.canvas.journal import Change
from services.sandbox.canvas.latest_calls import LatestCall
from services.sandbox.canvas.page.board import Board, Group, Member, Roster, Tile, Wish
from services.sandbox.canvas.state import Section

_NO_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What a name may hold and no document can, which lxml refuses."""


def _text(text: str) -> str:
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


def _add_text(element: html.HtmlElement, text: str) -> None:
    if len(element):
        element[-1].tail = (element[-1].tail or "") + _text(text)
    else:
        element.text = (element.text or "") + _text(text)


_h = ElementMaker(typemap={str: _add_text}, makeelement=html.html_parser.makeelement)
_LOAD_AGAIN_SECONDS = "3"
_ICON = (
    "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>"
    "<rect width='16' height='16' rx='4' fill='%230b6b57'/><path d='M3 8h3l1.5-4 2 8L11 8h2' fill='none' stroke='white' "
    "stroke-width='1.5'/></svg>"
)
_SIGNS = {"gained": "+", "lost": "−"}
_ARROWS = {"gained": "▲ ", "lost": "▼ "}
"""Before a number, where a minus would be taken for its sign."""


def page(board: Board, *, load_again: bool) -> str:
    """The whole document; with `load_again` a browser without scripts loads it again by itself."""
    head = _h.head(
        _h.meta(charset="utf-8"),
        _h.title("Rosters, live · Canvas sandbox"),
        _h.meta(name="viewport", content="width=device-width, initial-scale=1"),
        _h.meta(name="color-scheme", content="light dark"),
        _h.link(rel="icon", href=_ICON),
        _h.link(rel="stylesheet", href="/page/style.css"),
        _h.script(src="/page/script.js", defer="defer"),
    )
    if load_again:
        refresh = {"http-equiv": "refresh", "content": _LOAD_AGAIN_SECONDS}
        head.append(_h.noscript(_h.meta(refresh)))
    body = _h.body(
        _h.a({"class": "skip", "href": "#board"}, "Skip to the rosters"),
        _header(board, load_again=load_again),
        _board(board),
        _footer(),
    )
    text: str = html.tostring(_h.html({"lang": "en"}, head, body), encoding="unicode", doctype="<!DOCTYPE html>")
    return text


def part(board: Board) -> str:
    """What the script puts in the place of the old board."""
    text: str = html.tostring(_board(board), encoding="unicode")
    return text


def _header(board: Board, *, load_again: bool) -> html.HtmlElement:
    find = {
        "id": "find",
        "name": "find",
        "type": "search",
        "value": _text(board.wish.find),
        "autocomplete": "off",
        "maxlength": "100",
    }
    again = [
        f"Without scripts, this page loads itself every {_LOAD_AGAIN_SECONDS} seconds. ",
        _h.a({"href": "/?still"}, "Stop that"),
    ]
    return _h.header(
        {"class": "top"},
        _h.div(
            {"class": "title"},
            _h.h1("Rosters, live"),
            _h.p("A stand-in for Canvas. Everybody in it is invented; whoever holds its token changes it over REST."),
        ),
        _h.form(
            {"class": "tools", "method": "post", "action": "/", "role": "search"},
            _h.label({"for": "find"}, "Find a class or a person"),
            _h.div(_h.input(find), _h.button({"type": "submit"}, "Find")),
        ),
        _h.p(
            {"class": "state"},
            _h.span({"id": "state", "role": "status", "hidden": "hidden"}),
            _h.button({"id": "pause", "type": "button", "hidden": "hidden"}, "Pause"),
            _h.noscript(*(again if load_again else [_h.a({"href": "/"}, "Show all, and load again by itself")])),
        ),
    )


def _board(board: Board) -> html.HtmlElement:
    return _h.main(
        {"id": "board", "data-stamp": board.stamp, "tabindex": "-1"},
        _counters(board),
        _h.div({"class": "columns", "id": "columns"}, _h.div({"id": "sections"}, _rosters(board), _tiles(board)), _side(board)),
    )


def _counters(board: Board) -> html.HtmlElement:
    latency = "–" if board.latency is None else f"{_ms(board.latency[0])} / {_ms(board.latency[1])}"
    counted = [
        ("active enrollments", f"{board.active:,}", f"{board.people:,} people, {board.sections:,} sections"),
        ("changes", f"{board.changes_total:,}", "since the start"),
        ("REST calls", f"{board.calls_total:,}", f"{board.calls_per_second:.1f} a second"),
        ("latency, ms", latency, "p50 / p95 of the latest"),
        ("throttled", f"{board.calls_refused:,}", "calls refused"),
    ]
    items = [
        _h.div({"id": f"counter-{number}"}, _h.dt(name), _h.dd({"class": "figure"}, figure), _h.dd({"class": "note"}, note))
        for number, (name, figure, note) in enumerate(counted)
    ]
    return _h.dl({"class": "counters", "id": "counters"}, *items)


# --- rosters ---


def _rosters(board: Board) -> html.HtmlElement:
    heading = [_h.h2({"id": "rosters-title"}, _title(board))]
    if board.wish != Wish():
        heading.append(_h.a({"href": "/", "id": "all"}, "Show the busiest"))
    cards = [_roster(each) for each in board.rosters] or [_h.p({"class": "empty", "id": "empty"}, _nothing(board))]
    return _h.section(
        {"class": "rosters", "id": "rosters", "aria-labelledby": "rosters-title"}, _h.div({"class": "heading"}, *heading), *cards
    )


def _title(board: Board) -> str:
    if board.wish.section is not None:
        return "One section"
    return f"Found for “{board.wish.find}”" if board.wish.find else "Busiest sections"


def _nothing(board: Board) -> str:
    if board.wish != Wish():
        return "No section, and nobody in one, is called so."
    return "No section yet. What a program creates over REST, or the control side seeds, appears here."


def _roster(roster: Roster) -> html.HtmlElement:
    section = roster.section
    identity = f"roster-{section.id}"
    rows = [_group(section, group) for group in roster.groups]
    columns = _h.tr(*(_h.th({"scope": "col"}, name) for name in ("Role", "In the section", "Not any more")))
    table = (
        [_h.table(_h.caption(f"Members of {_name(section)}"), _h.thead(columns), _h.tbody(*rows))]
        if rows
        else [_h.p({"class": "empty"}, "Nobody yet.")]
    )
    changed = ["changed ", _time(roster.changed_at)] if roster.changed_at else ["as it was made"]
    return _h.article(
        {"class": "roster", "id": identity, "aria-labelledby": f"{identity}-title"},
        _h.header(
            _h.h3({"id": f"{identity}-title"}, _h.a({"href": f"/?section={section.id}"}, _name(section))),
            _h.p(_h.strong(f"{roster.active}"), " active", f" · {roster.gone} gone" if roster.gone else "", " · ", *changed),
        ),
        *table,
    )


def _group(section: Section, group: Group) -> html.HtmlElement:
    identity = f"group-{section.id}-{group.role}"
    return _h.tr(
        {"id": identity},
        _h.th({"scope": "row"}, group.role, " ", _h.span({"class": "count"}, str(group.here_total))),
        _h.td(_names(f"{identity}-here", group.here, group.here_total)),
        _h.td(_names(f"{identity}-gone", group.gone, group.gone_total)),
    )


def _names(identity: str, members: list[Member], total: int) -> html.HtmlElement:
    items = [_member(member) for member in members]
    if total > len(members):
        items.append(_h.li({"class": "more", "id": f"{identity}-more"}, f"and {total - len(members):,} more"))
    return _h.ul({"class": "members", "id": identity}, *items) if items else _h.span({"class": "none"}, "–")


def _member(member: Member) -> html.HtmlElement:
    classes = ["member", f"is-{member.state}", *([member.fresh] if member.fresh else []), *(["found"] if member.found else [])]
    sign = [_h.span({"class": "sign"}, _SIGNS[member.fresh], " ")] if member.fresh else []
    state = [] if member.state == "active" else [" ", _h.small(member.state.replace("_", " "))]
    name = _h.s(member.name) if member.state == "deleted" else _h.span(member.name)
    return _h.li({"class": " ".join(classes), "id": f"member-{member.enrollment}"}, *sign, name, *state)


# --- beside and below ---


def _side(board: Board) -> html.HtmlElement:
    return _h.aside({"class": "side", "id": "side"}, _changes(board.changes), _calls(board.calls))


def _changes(changes: Iterable[Change]) -> html.HtmlElement:
    items = [
        _h.li(
            {"id": f"change-{each.number}", "class": "gained" if each.after in ("active", "invited") else "lost"},
            _time(each.at),
            " ",
            _h.span({"class": "who"}, each.row.user.name),
            " ",
            _h.span({"class": "what"}, f"{each.row.role.label.lower()} in {_name(each.section)}: {_step(each)}"),
        )
        for each in changes
    ]
    return _h.section(
        {"class": "changes", "aria-labelledby": "changes-title", "id": "changes-part"},
        _h.h2({"id": "changes-title"}, "Latest changes"),
        _h.ol({"id": "changes"}, *items) if items else _h.p({"class": "empty"}, "None yet."),
    )


def _step(change: Change) -> str:
    return change.after if change.before is None else f"{change.before} → {change.after}"


def _calls(calls: list[LatestCall]) -> html.HtmlElement:
    columns = _h.tr(*(_h.th({"scope": "col"}, name) for name in ("Time", "Call", "Answer", "ms")))
    rows = [
        _h.tr(
            {"class": "fine" if each.outcome.startswith("2") else "bad"},
            _h.td(_time(each.at)),
            _h.td(each.endpoint, *([_h.small(" ", each.section)] if each.section else [])),
            _h.td(each.outcome),
            _h.td({"class": "number"}, _ms(each.seconds)),
        )
        for each in calls
    ]
    content = (
        _h.table(_h.caption("The newest calls to the REST API"), _h.thead(columns), _h.tbody(*rows))
        if rows
        else _h.p({"class": "empty"}, "None yet.")
    )
    return _h.section(
        {"class": "calls", "aria-labelledby": "calls-title", "id": "calls-part"},
        _h.h2({"id": "calls-title"}, "Latest calls"),
        content,
    )


def _tiles(board: Board) -> html.HtmlElement:
    shown = len(board.tiles)
    title = "All sections" if shown == board.sections else f"{shown} of {board.sections:,} sections, those that changed last"
    return _h.section(
        {"class": "all", "aria-labelledby": "tiles-title", "id": "all-sections"},
        _h.h2({"id": "tiles-title"}, title),
        _h.ul({"class": "tiles", "id": "tiles"}, *(_tile(each) for each in board.tiles)),
    )


def _tile(tile: Tile) -> html.HtmlElement:
    classes = {"class": f"tile {tile.fresh}" if tile.fresh else "tile", "id": f"tile-{tile.section.id}"}
    sign = [_h.span({"class": "sign"}, _ARROWS[tile.fresh])] if tile.fresh else []
    return _h.li(
        classes,
        _h.a(
            {"href": f"/?section={tile.section.id}"},
            _h.span(_name(tile.section)),
            " ",
            _h.b(*sign, f"{tile.active}", _h.span({"class": "away"}, " active")),
        ),
    )


def _footer() -> html.HtmlElement:
    return _h.footer(
        _h.p("Part of Enrollstream's sandbox. Nothing here is loaded from anywhere else, and no person is named in an address.")
    )


def _name(section: Section) -> str:
    """Sections are often called as their course, with or without more."""
    if section.name.startswith(section.course.name):
        return section.name
    return f"{section.course.name} · {section.name}"


def _time(at: float) -> html.HtmlElement:
    """In UTC, as everything in the demo's logs."""
    moment = datetime.fromtimestamp(at, UTC)
    return _h.time({"datetime": moment.isoformat(timespec="milliseconds")}, f"{moment:%H:%M:%S}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f}"
