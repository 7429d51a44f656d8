"""Accounts and their roles (``accounts_controller.rb``, ``role_overrides_controller.rb``)."""

from __future__ import annotations

from services.sandbox.canvas import rendering
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import text, texts
from services.sandbox.canvas.routing import Route


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


ROUTES = [
    Route("GET", "accounts", "accounts.list", list_accounts),
    Route("GET", "accounts/:account", "accounts.get", show),
    Route("GET", "accounts/:account/roles", "roles.list", list_roles),
]
