"""One request on its way through the sandbox: what a route gets, and what it hands back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from services.sandbox.canvas import errors
from services.sandbox.canvas.addressing import find_account, find_course, find_section, find_user
from services.sandbox.canvas.effects import Effect
from services.sandbox.canvas.paging import Links
from services.sandbox.canvas.parameters import Parameters
from services.sandbox.canvas.rendering import View
from services.sandbox.canvas.settings import Settings
from services.sandbox.canvas.state import Account, Course, Enrollment, Pseudonym, Section, User
from services.sandbox.canvas.tokens import Caller, Token
from services.sandbox.canvas.world import World


class Answer(NamedTuple):
    """Status 200 unless said otherwise; `body` is rendered as JSON."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = {}


@dataclass(slots=True)
class Call:
    """The authenticated request. Look-ups raise the 404 that upstream answers."""

    world: World
    settings: Settings
    token: Token
    path: Mapping[str, str]
    """The variable parts of the path, decoded."""
    parameters: Parameters
    links: Links
    origin: str
    effect: Effect | None = None
    """Set by a route that changed an enrollment."""

    @property
    def caller(self) -> Caller:
        return Caller(self.token, self.settings.unauthorized_status)

    @property
    def view(self) -> View:
        return View(self.token, self.origin)

    def course(self) -> Course:
        """The course of the path; a deleted one is not there (``app/controllers/application_controller.rb#get_context``)."""
        found = find_course(self.world, self.path["course"])
        if found is None or found.state == "deleted":
            raise errors.not_found()
        return found

    def section(self) -> Section:
        """The section of the path, in the course where it is now; a deleted section is found, one of a deleted course is not."""
        found = find_section(self.world, self.path["section"])
        if found is None or found.course.state == "deleted":
            raise errors.not_found()
        return found

    def user(self, named: str | None = None) -> User:
        """The user of the path, or of a parameter."""
        found = find_user(self.world, named or self.path["user"], self.token.user)
        if found is None or found.state == "deleted":
            raise errors.not_found()
        return found

    def account(self) -> Account:
        """The account of the path."""
        found = find_account(self.world, self.path["account"])
        if found is None:
            raise errors.not_found()
        return found

    def may_delete(self, login: Pseudonym) -> bool:
        """Delete or suspend: a login with a SIS id takes the right to manage those as well (``app/models/pseudonym.rb``)."""
        may = self.token.may
        return may("manage_user_logins") and (login.sis_user_id is None or may("manage_sis"))

    def visible_state(self, row: Enrollment) -> str | None:
        """The stored state as reads show it now; None while a new row is not visible yet."""
        lag = self.settings.visibility_lag_seconds
        if not lag:
            return row.state
        until = time.monotonic() - lag
        seen = [state for at, state in row.history if at <= until]
        return seen[-1] if seen else None
