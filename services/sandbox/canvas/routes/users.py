"""Users and their logins (``app/controllers/users_controller.rb``)."""

from __future__ import annotations

from services.sandbox.canvas import rendering
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.errors import Refusal
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import Parameters, boolean, text, tree
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import Pseudonym, User


def show(call: Call) -> Answer:
    """404 for an unknown user, and for one whose only login with that SIS id was deleted."""
    return Answer(rendering.user(call.user(), call.view))


def list_in_account(call: Call) -> Answer:
    """By sortable name; ``search_term`` looks into name, login and SIS id (``lib/user_search.rb``, simplified)."""
    call.account()
    term = (text(call.parameters, "search_term") or "").casefold()
    found = [user for user in call.world.users.values() if user.login() and any(term in word for word in _words(user))]
    found.sort(key=lambda user: (user.sortable_name.casefold(), user.id))
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(found, text(call.parameters, "page"), size, call.links)
    return Answer([rendering.user(user, call.view) for user in shown], headers={"Link": link})


def _words(user: User) -> list[str]:
    ids = [word for login in user.pseudonyms for word in (login.unique_id, login.sis_user_id or "")]
    return [word.casefold() for word in (user.name, *ids)]


def create(call: Call) -> Answer:
    """Needs a login that is free. A SIS id is dropped without a word unless the caller may manage them."""
    call.account()
    wanted, login = tree(call.parameters, "user"), tree(call.parameters, "pseudonym")
    unique_id = text(login, "unique_id")
    sis_user_id = text(login, "sis_user_id") if call.token.may("manage_sis") else None
    if sis_user_id and boolean(call.parameters.get("enable_sis_reactivation")):
        revived = _revive(call.world.logins_by_sis.get(sis_user_id), wanted)
        if revived:
            return Answer(rendering.user(revived, call.view))
    _check_free(call, unique_id, sis_user_id)
    user = call.world.add_user(text(wanted, "name") or str(unique_id), text(wanted, "sortable_name"))
    user.short_name = text(wanted, "short_name") or user.name
    made = call.world.add_login(user, str(unique_id), sis_user_id)
    made.integration_id = text(login, "integration_id") if call.token.may("manage_sis") else None
    user.state = "registered" if boolean(wanted.get("skip_registration")) else "pre_registered"
    return Answer(rendering.user(user, call.view))


def _revive(login: Pseudonym | None, wanted: Parameters) -> User | None:
    if login is None or login.state != "deleted":
        return None
    login.state = "active"
    login.user.name = text(wanted, "name") or login.user.name
    return login.user


def _check_free(call: Call, unique_id: str | None, sis_user_id: str | None) -> None:
    if unique_id is None:
        raise _login_error("unique_id", "too_short", "is too short")
    taken = call.world.logins_by_unique_id.get(unique_id.lower())
    if taken and taken.state != "deleted":
        raise _login_error("unique_id", "taken", "ID already in use for this account and authentication provider")
    owner = call.world.logins_by_sis.get(sis_user_id or "")
    if owner and owner.state != "deleted":
        raise _login_error("sis_user_id", "taken", f"SIS ID {sis_user_id!r} is already in use")


def _login_error(attribute: str, kind: str, message: str) -> Refusal:
    problem = [{"attribute": attribute, "type": kind, "message": message}]
    return Refusal(400, {"errors": {"user": {}, "pseudonym": {attribute: problem}, "observee": {}}})


ROUTES = [
    Route("GET", "users/:user", "users.get", show),
    Route("GET", "accounts/:account/users", "users.list", list_in_account),
    Route("POST", "accounts/:account/users", "users.create", create),
]
