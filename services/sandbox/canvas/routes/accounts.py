"""Accounts, their roles and terms (``accounts_controller.rb``, ``role_overrides_controller.rb``, ``terms_api_controller.rb``)."""

from __future__ import annotations

from services.sandbox.canvas import errors, rendering
from services.sandbox.canvas.addressing import find_term
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import Parameters, moment, text, texts, tree
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import Term


def list_accounts(call: Call) -> Answer:
    """The accounts the caller administers: here, all."""
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(list(call.world.accounts.values()), text(call.parameters, "page"), size, call.links)
    return Answer([rendering.account(account, call.view) for account in shown], headers={"Link": link})


def show(call: Call) -> Answer:
    """``self`` is the root account."""
    return Answer(rendering.account(call.account(), call.view))


def list_roles(call: Call) -> Answer:
    """Built-in and custom roles; only active ones unless ``state[]`` asks for others. Built-in ones count as active."""
    account = call.account()
    states = texts(call.parameters, "state") or ["active"]
    shown_states = {*states, "built_in"} if "active" in states else set(states)
    found = [role for role in call.world.roles.values() if role.state in shown_states]
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(found, text(call.parameters, "page"), size, call.links)
    return Answer([rendering.role(role, account, call.view) for role in shown], headers={"Link": link})


def list_terms(call: Call) -> Answer:
    """Wrapped in an object, unlike other lists."""
    call.account()
    active = [term for term in call.world.terms.values() if term.state == "active"]
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(active, text(call.parameters, "page"), size, call.links)
    return Answer({"enrollment_terms": [rendering.term(term, call.view) for term in shown]}, headers={"Link": link})


def show_term(call: Call) -> Answer:
    """By Canvas id, ``sis_term_id:``, ``default`` or ``current``."""
    call.account()
    term = find_term(call.world, call.path["term"])
    if term is None:
        raise errors.not_found()
    return Answer(rendering.term(term, call.view))


def create_term(call: Call) -> Answer:
    """Root account only."""
    call.account()
    call.caller.require("manage_account_settings")
    wanted = tree(call.parameters, "enrollment_term")
    sis_id = text(wanted, "sis_term_id") if call.token.may("manage_sis") else None
    if sis_id and sis_id in call.world.terms_by_sis:
        raise errors.invalid("sis_source_id", f"SIS ID {sis_id!r} is already in use", "taken")
    term = call.world.add_term(text(wanted, "name") or "", sis_id)
    _set_dates(term, wanted)
    return Answer(rendering.term(term, call.view))


def _set_dates(term: Term, wanted: Parameters) -> None:
    term.start_at, term.end_at = moment(wanted.get("start_at")), moment(wanted.get("end_at"))
    for kind, dates in tree(wanted, "overrides").items():
        if isinstance(dates, dict):
            term.overrides[kind] = (moment(dates.get("start_at")), moment(dates.get("end_at")))


ROUTES = [
    Route("GET", "accounts", "accounts.list", list_accounts),
    Route("GET", "accounts/:account", "accounts.get", show),
    Route("GET", "accounts/:account/roles", "roles.list", list_roles),
    Route("GET", "accounts/:account/terms", "terms.list", list_terms),
    Route("GET", "accounts/:account/terms/:term", "terms.get", show_term),
    Route("POST", "accounts/:account/terms", "terms.create", create_term),
]
