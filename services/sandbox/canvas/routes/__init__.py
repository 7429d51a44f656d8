"""The endpoints, one module per kind of object. A handler is synchronous: what it changes, it changes at once."""

from __future__ import annotations

from services.sandbox.canvas.routes import accounts, courses, enrollments, rosters, sections, users
from services.sandbox.canvas.routing import Route

ROUTES: list[Route] = [*enrollments.ROUTES, *rosters.ROUTES, *users.ROUTES, *sections.ROUTES, *courses.ROUTES, *accounts.ROUTES]
