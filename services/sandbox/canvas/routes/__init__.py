"""The endpoints, one module per kind of object. A handler is synchronous: what it changes, it changes at once."""

from __future__ import annotations

from services.sandbox.canvas.routes import (
    accounts,
    courses,
    crosslisting,
    enrollments,
    logins,
    merging,
    rosters,
    sections,
    terms,
    users,
)
from services.sandbox.canvas.routing import Route

_PARTS = (enrollments, rosters, users, logins, merging, sections, crosslisting, courses, terms, accounts)
ROUTES: list[Route] = [route for part in _PARTS for route in part.ROUTES]
