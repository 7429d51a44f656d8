"""``GET /``: the rosters as a page that shows changes as they happen, for who watches a demo. Loopback only, as the control side.

The page is drawn here and works as it is; a little script fetches the board again every second and puts in what is new
(decision 0166). Nobody is named in a URL: what a visitor looks for travels in the body.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.sandbox.canvas.control.requests import Endpoint, loopback_only
from services.sandbox.canvas.page import drawing
from services.sandbox.canvas.page.board import View, Wish

if TYPE_CHECKING:
    from services.sandbox.canvas.app import Canvas

_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with none at all the page's own form would come from nowhere, as a stranger's
    "Cache-Control": "no-store",
}
_LONGEST_FIND = 100


def page_app(canvas: Canvas) -> Starlette:
    """The ASGI application of the page of one Canvas."""
    page = _Page(View(canvas))
    return Starlette(
        routes=[
            Route("/", loopback_only(page.whole), methods=["GET", "POST"]),
            Route("/page/board", loopback_only(page.board), methods=["POST"]),
            Route("/page/style.css", loopback_only(_file("style.css", "text/css")), methods=["GET"]),
            Route("/page/script.js", loopback_only(_file("script.js", "text/javascript")), methods=["GET"]),
        ]
    )


class _Page:
    def __init__(self, view: View) -> None:
        self._view = view

    async def whole(self, request: Request) -> Response:
        """``section=`` shows one section, ``still`` keeps a browser without scripts from loading it again; ``find`` in a form."""
        query = request.query_params
        form = await _form(request)
        wish = _wish(form.get("find"), query.get("section"))
        # A page that answers a form cannot load itself again: that would be another one.
        again = request.method == "GET" and "still" not in query
        return _html(drawing.page(self._view.board(wish), load_again=again))

    async def board(self, request: Request) -> Response:
        """The part that changes, or 204 when it looks as the visitor has ``seen`` it."""
        form = await _form(request)
        if form.get("seen") == self._view.stamp():
            return Response(status_code=204, headers=_SECURITY)
        return _html(drawing.part(self._view.board(_wish(form.get("find"), form.get("section")))))


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form; none of a body that is none."""
    return dict(parse_qsl((await request.body()).decode(errors="replace")))


def _wish(find: str | None, section: str | None) -> Wish:
    number = int(section) if section and section.isascii() and section.isdigit() and len(section) < 19 else None
    return Wish((find or "").strip()[:_LONGEST_FIND], number)


def _html(text: str) -> Response:
    return Response(text, headers=_SECURITY, media_type="text/html")


def _file(name: str, media_type: str) -> Endpoint:
    content = (files(__name__) / name).read_bytes()

    async def send(_request: Request) -> Response:
        return Response(content, headers=_SECURITY, media_type=media_type)

    return send
