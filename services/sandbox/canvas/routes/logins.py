"""Logins of users (``app/controllers/pseudonyms_controller.rb``, ``app/models/pseudonym.rb``). They carry the SIS ids."""

from __future__ import annotations

from services.sandbox.canvas import errors, rendering, sticky
from services.sandbox.canvas.addressing import parse
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.editing import override
from services.sandbox.canvas.errors import Refusal
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import Parameters, text, tree
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import Pseudonym, User
from services.sandbox.canvas.world import World

_KNOWN = frozenset(
    {
        "unique_id",
        "password",
        "sis_user_id",
        "integration_id",
        "workflow_state",
        "authentication_provider_id",
        "declared_user_type",
    }
)
Problem = tuple[str, str, str]
"""Attribute, type and message of a validation error."""


def problem_with(world: World, unique_id: str | None, sis_user_id: str | None, own: Pseudonym | None = None) -> Problem | None:
    """Why a login cannot have these ids. A SIS id stays taken after its login was deleted, a unique id does not."""
    if unique_id is None:
        return "unique_id", "too_short", "too_short"
    holder = world.logins_by_unique_id.get(unique_id.lower())
    if holder and holder is not own and holder.state != "deleted":
        return "unique_id", "taken", "ID already in use for this account and authentication provider"
    if sis_user_id and world.logins_by_sis.get(sis_user_id) not in (None, own):
        return "sis_user_id", "taken", f'SIS ID "{sis_user_id}" is already in use'
    return None


def _check(call: Call, login: Pseudonym | None, unique_id: str | None, sis_user_id: str | None) -> None:
    problem = problem_with(call.world, unique_id, sis_user_id, login)
    if problem:
        attribute, kind, message = problem
        raise errors.invalid(attribute, message, kind)


def list_of_user(call: Call) -> Answer:
    """Those that are not deleted, suspended ones too."""
    return _page(call, call.user())


def _page(call: Call, user: User) -> Answer:
    if user is not call.token.user:
        call.caller.require("manage_user_logins")
    live = [login for login in user.pseudonyms if login.state != "deleted"]
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(live, text(call.parameters, "page"), size, call.links)
    return Answer([rendering.login(login, call.view) for login in shown], headers={"Link": link})


def list_of_account(call: Call) -> Answer:
    """Those of one user (``user_id``, else the caller) in the account."""
    _require_root(call)
    user = call.user(text(call.parameters, "user_id") or "self")
    return _page(call, user)


def create(call: Call) -> Answer:
    """One more login for a user who is there already."""
    user = call.user(text(tree(call.parameters, "user"), "id") or "self")
    _require_root(call)
    call.caller.require("manage_user_logins")
    wanted = _wanted(call)
    _require_sis_right(call, wanted)
    unique_id, sis_user_id = text(wanted, "unique_id"), text(wanted, "sis_user_id")
    _check(call, None, unique_id, sis_user_id)
    login = call.world.add_login(user, str(unique_id), sis_user_id)
    login.integration_id = text(wanted, "integration_id")
    sticky.made(call.world, login)
    return Answer(rendering.login(login, call.view))


def update(call: Call) -> Answer:
    """Unique id and state become sticky; a SIS id changes for whoever may manage them, and the old one finds nobody any more."""
    login = _by_id(call)
    call.caller.require("manage_user_logins")
    wanted = _wanted(call)
    _require_sis_right(call, wanted)
    state = text(wanted, "workflow_state")
    if state is not None:
        if state not in ("active", "suspended"):
            raise errors.invalid("workflow_state", "invalid workflow_state")
        if not call.may_delete(login):
            raise errors.unauthorized(call.settings.unauthorized_status)
    unique_id = text(wanted, "unique_id") if "unique_id" in wanted else login.unique_id
    _check(call, login, unique_id, text(wanted, "sis_user_id"))
    if "sis_user_id" in wanted:
        call.world.set_sis_id(login, text(wanted, "sis_user_id"))
    if "integration_id" in wanted:
        login.integration_id = text(wanted, "integration_id")
    before = login.unique_id
    sticky.write(login, override=override(call), unique_id=unique_id, state=state or login.state)
    if login.unique_id != before:
        call.world.renamed_login(login, before)
    return Answer(rendering.login(login, call.view))


def _require_root(call: Call) -> None:
    if call.account() is not call.world.root:
        raise errors.message("Action must be called on a root account.")


def _wanted(call: Call) -> Parameters:
    """What was sent; nothing that is known is a 400 without a body."""
    wanted = tree(call.parameters, "login")
    if not _KNOWN & set(wanted):
        raise Refusal(400, None)
    return wanted


def _require_sis_right(call: Call, wanted: Parameters) -> None:
    if {"sis_user_id", "integration_id"} & set(wanted):
        call.caller.require("manage_sis")


def delete(call: Call) -> Answer:
    """Not the last one of a user. The enrollments stay, with the link to the deleted login."""
    user, login = call.user(), _by_id(call)
    if login.user is not user:
        raise errors.not_found()
    if not call.may_delete(login):
        raise errors.unauthorized(call.settings.unauthorized_status)
    if sum(other.state != "deleted" for other in user.pseudonyms) < 2:
        raise errors.invalid("base", "Users must have at least one login")
    login.state = "deleted"
    return Answer(rendering.login(login, call.view))


def _by_id(call: Call) -> Pseudonym:
    """By Canvas id only, among those that are not deleted."""
    address = parse(call.path["id"])
    found = call.world.logins.get(int(address.value)) if address and address.form == "id" else None
    if found is None or found.state == "deleted":
        raise errors.not_found()
    return found


ROUTES = [
    Route("GET", "users/:user/logins", "logins.list", list_of_user),
    Route("GET", "accounts/:account/logins", "logins.list", list_of_account),
    Route("POST", "accounts/:account/logins", "logins.create", create),
    Route("PUT", "accounts/:account/logins/:id", "logins.update", update),
    Route("DELETE", "users/:user/logins/:id", "logins.delete", delete),
]
