"""Terms (``app/controllers/terms_controller.rb``, ``terms_api_controller.rb``, ``app/models/enrollment_term.rb``)."""

from __future__ import annotations

from typing import Any

from services.sandbox.canvas import errors, rendering, sticky
from services.sandbox.canvas.addressing import find_term
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.editing import check_order, given_dates, override, set_sis_id
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import Parameters, moment, text, texts, tree
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import Term

_OVERRIDABLE = ("StudentEnrollment", "TeacherEnrollment", "TaEnrollment", "DesignerEnrollment")


def list_terms(call: Call) -> Answer:
    """Wrapped in an object, unlike other lists. Active ones unless ``workflow_state`` asks for others."""
    _require_root_to_read(call)
    asked = set(texts(call.parameters, "workflow_state")) & {"all", "active", "deleted"} or {"active"}
    found = [term for term in call.world.terms.values() if "all" in asked or term.state in asked]
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(found, text(call.parameters, "page"), size, call.links)
    return Answer({"enrollment_terms": [rendering.term(term, call.view) for term in shown]}, headers={"Link": link})


def show_term(call: Call) -> Answer:
    """By Canvas id, ``sis_term_id:``, ``default`` or ``current``; deleted ones too, and only their state tells."""
    _require_root_to_read(call)
    return Answer(rendering.term(_found(call), call.view))


def _found(call: Call) -> Term:
    term = find_term(call.world, call.path["term"])
    if term is None:
        raise errors.not_found()
    return term


def create(call: Call) -> Answer:
    """Root account only."""
    _require_root(call)
    wanted = _checked(call)
    sis_id = text(wanted, "sis_term_id") if call.token.may("manage_sis") else None
    if sis_id and sis_id in call.world.terms_by_sis:
        raise errors.sis_id_taken(sis_id)
    term = call.world.add_term(text(wanted, "name") or "", sis_id)
    term.start_at, term.end_at = moment(wanted.get("start_at")), moment(wanted.get("end_at"))
    sticky.made(call.world, term)
    _override_dates(term, wanted)
    return Answer(rendering.term(term, call.view))


def update(call: Call) -> Answer:
    """Name and dates become sticky; overrides by role type do not. A SIS id without the right is ignored."""
    _require_root(call)
    term = _found(call)
    if term.state == "deleted":
        raise errors.not_found()
    wanted = _checked(call)
    if call.token.may("manage_sis"):
        set_sis_id(call, term, wanted, "sis_term_id")
    columns: dict[str, Any] = dict(given_dates(wanted))
    if "name" in wanted:
        columns["name"] = text(wanted, "name") or ""
    sticky.write(term, override=override(call), **columns)
    _override_dates(term, wanted)
    return Answer(rendering.term(term, call.view))


def delete(call: Call) -> Answer:
    """Refused for the default term, and while a course is in it."""
    _require_root(call)
    term = _found(call)
    if term is call.world.default_term:
        raise errors.invalid("workflow_state", "Cannot delete the default term")
    if any(course.term is term and course.state != "deleted" for course in call.world.courses.values()):
        raise errors.invalid("workflow_state", "Cannot delete a term with active courses")
    term.state = "deleted"
    return Answer(rendering.term(term, call.view))


def _require_root_to_read(call: Call) -> None:
    if call.account() is not call.world.root:
        raise errors.message("Terms only belong to root_accounts.")


def _require_root(call: Call) -> None:
    if call.account() is not call.world.root:
        raise errors.not_found()
    call.caller.require("manage_account_settings")


def _checked(call: Call) -> Parameters:
    """What was sent, once its dates and role types make sense."""
    wanted = tree(call.parameters, "enrollment_term")
    overrides = tree(wanted, "overrides")
    if set(overrides) - set(_OVERRIDABLE):
        raise errors.message("Invalid enrollment type in overrides")
    for dates in (wanted, *(dates for dates in overrides.values() if isinstance(dates, dict))):
        check_order(moment(dates.get("start_at")), moment(dates.get("end_at")), "base", "End dates cannot be before start dates")
    return wanted


def _override_dates(term: Term, wanted: Parameters) -> None:
    for kind, dates in tree(wanted, "overrides").items():
        if isinstance(dates, dict):
            term.overrides[kind] = (moment(dates.get("start_at")), moment(dates.get("end_at")))


ROUTES = [
    Route("GET", "accounts/:account/terms", "terms.list", list_terms),
    Route("GET", "accounts/:account/terms/:term", "terms.get", show_term),
    Route("POST", "accounts/:account/terms", "terms.create", create),
    Route("PUT", "accounts/:account/terms/:term", "terms.update", update),
    Route("DELETE", "accounts/:account/terms/:term", "terms.delete", delete),
]
