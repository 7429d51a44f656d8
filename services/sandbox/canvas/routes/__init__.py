"""The endpoints, one module per kind of object. A handler is synchronous: what it changes, it changes at once."""

from __future__ import annotations

from services.sandbox.canvas.routes import (
    accounts,
    bulk,
    courses,
    crosslisting,
    enrollments,
    logins,
    merging,
    observees,
    people,
    rosters,
    sections,
    terms,
    users,
)
from services.sandbox.canvas.routing import Route

_PARTS = (enrollments, rosters, people, bulk, users, observees, logins, merging, sections, crosslisting, courses, terms, accounts)
ROUTES: list[Route] = [route for part in _PARTS for route in part.ROUTES]
