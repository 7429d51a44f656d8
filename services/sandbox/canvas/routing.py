"""Which route a path means. Segments are compared before they are decoded, so ``%2F`` inside an id survives.

A final ``.json`` is a format, not a part of the id, and no other segment may end in it (``lib/api_route_set.rb``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from services.sandbox.canvas.call import Answer, Call

Handler = Callable[[Call], Answer]
PREFIX = "/api/v1/"


class Route(NamedTuple):
    """`pattern` is relative to ``/api/v1/``; ``:name`` stands for one segment. Faults, logs and counters say `endpoint`."""

    method: str
    pattern: str
    endpoint: str
    handler: Handler


class Match(NamedTuple):
    route: Route
    path: dict[str, str]


class Router:
    """Finds routes by method and number of segments, the first that fits wins."""

    def __init__(self, routes: list[Route]) -> None:
        self._routes: dict[tuple[str, int], list[tuple[list[str], Route]]] = {}
        for route in routes:
            parts = route.pattern.split("/")
            self._routes.setdefault((route.method, len(parts)), []).append((parts, route))

    def match(self, method: str, raw_path: str) -> Match | None:
        """None when no route fits."""
        if not raw_path.startswith(PREFIX):
            return None
        segments = raw_path[len(PREFIX) :].removesuffix(".json").split("/")
        if any(segment.endswith(".json") for segment in segments):
            return None
        for parts, route in self._routes.get((method, len(segments)), []):
            found = _variables(parts, segments)
            if found is not None:
                return Match(route, found)
        return None


def _variables(parts: list[str], segments: list[str]) -> dict[str, str] | None:
    found = {}
    for part, segment in zip(parts, segments, strict=True):
        if part.startswith(":"):
            if not segment:
                return None
            found[part[1:]] = unquote(segment)
        elif part != segment:
            return None
    return found
