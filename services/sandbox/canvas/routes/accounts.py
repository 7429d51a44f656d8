"""Accounts and their roles (``accounts_controller.rb``, ``role_overrides_controller.rb``)."""

from __future__ import annotations

from services.sandbox.canvas import errors, rendering
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import boolean, text, texts, tree
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import Account


def list_accounts(call: Call) -> Answer:
    """The accounts the caller administers: here, all."""
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(list(call.world.accounts.values()), text(call.parameters, "page"), size, call.links)
    return Answer([rendering.account(account, call.view) for account in shown], headers={"Link": link})


def show(call: Call) -> Answer:
    """``self`` is the root account."""
    return Answer(rendering.account(call.account(), call.view))


def permissions(call: Call) -> Answer:
    """Which of the named permissions the caller has in the account; a name that is none of Canvas's is nobody's.

    Who has no role in the account may not even ask (``app/models/account.rb`` set_policy: read).
    """
    call.account()
    if not call.token.permissions:
        raise errors.unauthorized(call.settings.unauthorized_status)
    return Answer({name: call.token.may(name) for name in texts(call.parameters, "permissions")})


def list_sub_accounts(call: Call) -> Answer:
    """Right below the account; with ``recursive``, all the way down."""
    above = call.account()
    everywhere = boolean(call.parameters.get("recursive"))
    below = [item for item in call.world.accounts.values() if item.parent is above or (everywhere and _is_below(item, above))]
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(below, text(call.parameters, "page"), size, call.links)
    return Answer([rendering.account(account, call.view) for account in shown], headers={"Link": link})


def _is_below(account: Account, above: Account) -> bool:
    while account.parent:
        account = account.parent
        if account is above:
            return True
    return False


def create_sub_account(call: Call) -> Answer:
    """A SIS id is dropped without a word unless the caller may manage them (``sub_accounts_controller.rb``)."""
    above = call.account()
    call.caller.require("manage_account_settings")
    wanted = tree(call.parameters, "account")
    sis_id = text(wanted, "sis_account_id") if call.token.may("manage_sis") else None
    if sis_id and any(account.sis_account_id == sis_id for account in call.world.accounts.values()):
        raise errors.sis_id_taken(sis_id)
    account = call.world.add_account(text(wanted, "name") or "", sis_id)
    account.parent = above
    return Answer(rendering.account(account, call.view))


def show_role(call: Call) -> Answer:
    """By Canvas id, whatever its state."""
    account, identity = call.account(), call.path["id"]
    call.caller.require("manage_role_overrides")
    role = call.world.roles.get(int(identity)) if identity.isascii() and identity.isdigit() else None
    if role is None:
        raise errors.not_found()
    return Answer(rendering.role(role, account, call.view))


def list_roles(call: Call) -> Answer:
    """Built-in and custom roles; only active ones unless ``state[]`` asks for others. Built-in ones count as active."""
    account = call.account()
    call.caller.require("manage_role_overrides")
    states = texts(call.parameters, "state") or ["active"]
    shown_states = {*states, "built_in"} if "active" in states else set(states)
    found = [role for role in call.world.roles.values() if role.state in shown_states]
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(found, text(call.parameters, "page"), size, call.links)
    return Answer([rendering.role(role, account, call.view) for role in shown], headers={"Link": link})


ROUTES = [
    Route("GET", "accounts", "accounts.list", list_accounts),
    Route("GET", "accounts/:account", "accounts.get", show),
    Route("GET", "accounts/:account/permissions", "accounts.permissions", permissions),
    Route("GET", "accounts/:account/sub_accounts", "accounts.list", list_sub_accounts),
    Route("POST", "accounts/:account/sub_accounts", "accounts.create", create_sub_account),
    Route("GET", "accounts/:account/roles", "roles.list", list_roles),
    Route("GET", "accounts/:account/roles/:id", "roles.get", show_role),
]
