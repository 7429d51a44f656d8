"""Users (``app/controllers/users_controller.rb``, ``accounts_controller.rb``)."""

from __future__ import annotations

from typing import Any

from services.sandbox.canvas import channels, errors, leaving, mails, rendering, sticky
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.editing import override
from services.sandbox.canvas.errors import Refusal
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import Parameters, boolean, text, texts, tree
from services.sandbox.canvas.routes.logins import problem_with
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import Channel, Pseudonym, User, uuid_of
from services.sandbox.canvas.world import last_name_first

_NAMES = ("name", "short_name", "sortable_name", "pronouns")
_KNOWN = frozenset({*_NAMES, "event", "time_zone", "locale", "email", "title", "bio", "birthdate", "avatar"})


def show(call: Call) -> Answer:
    """404 for an unknown user, for one whose only login with that SIS id was deleted, and for a caller who may not see people.

    The address is shown, as in no list.
    """
    user = call.user()
    if not (user is call.token.user or call.token.may("read_roster") or call.token.may("manage_user_logins")):
        raise errors.not_found()
    body = rendering.user_with_address(user, call.view)
    return Answer(body | {"uuid": uuid_of("user", user.id)} if "uuid" in texts(call.parameters, "include") else body)


def profile(call: Call) -> Answer:
    """What the profile shows (``app/controllers/profile_controller.rb``), of which a sync reads ids and names."""
    user = call.user()
    shown = rendering.user(user, call.view)
    names = ("id", "name", "short_name", "sortable_name", "login_id", "sis_user_id", "integration_id")
    body = {name: shown[name] for name in names if name in shown} | {"time_zone": "America/Denver"}
    return Answer(body | {"primary_email": user.email} if call.token.may("read_email_addresses") else body)


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
    """Needs a login that is free. SIS ids are dropped without a word unless the caller may manage them."""
    call.account()
    call.caller.require("manage_user_logins")
    wanted, login = tree(call.parameters, "user"), tree(call.parameters, "pseudonym")
    may = call.token.may("manage_sis")
    sis_user_id = text(login, "sis_user_id") if may else None
    unique_id = text(login, "unique_id")
    revived = _revived(call, sis_user_id) if boolean(call.parameters.get("enable_sis_reactivation")) else None
    problem = problem_with(call.world, unique_id or (revived.unique_id if revived else None), sis_user_id, revived)
    if problem:
        raise _refused(*problem)
    if revived:
        _revive(call, revived, wanted, unique_id)
        return Answer(rendering.user(revived.user, call.view))
    user = call.world.add_user(text(wanted, "name") or str(unique_id), text(wanted, "sortable_name"))
    user.short_name = text(wanted, "short_name") or user.name
    user.state = "registered" if boolean(wanted.get("skip_registration")) else "pre_registered"
    _give_address(call, user, str(unique_id))
    made = call.world.add_login(user, str(unique_id), sis_user_id)
    made.integration_id = text(login, "integration_id") if may else None
    sticky.made(call.world, user)
    sticky.made(call.world, made)
    return Answer(rendering.user(user, call.view))


def _give_address(call: Call, user: User, unique_id: str) -> None:
    """The login is the address where none was sent; a blank one is none. Confirmed only for who may manage students."""
    wanted = tree(call.parameters, "communication_channel")
    address = str(wanted.get("address", unique_id))
    if not channels.is_address(address):
        return
    confirmed = boolean(wanted.get("skip_confirmation")) and call.token.may("manage_students")
    user.channels = [Channel(address, confirmed)]
    if not confirmed:
        asked = boolean(tree(call.parameters, "pseudonym").get("send_confirmation"))
        mails.of_new_user(call.world, user, address, asked=asked)


def _revived(call: Call, sis_user_id: str | None) -> Pseudonym | None:
    login = call.world.logins_by_sis.get(sis_user_id or "")
    return login if login and login.state == "deleted" else None


def _revive(call: Call, login: Pseudonym, wanted: Parameters, unique_id: str | None) -> None:
    """The login and its user come back, the enrollments do not."""
    before, login.unique_id = login.unique_id, unique_id or login.unique_id
    call.world.renamed_login(login, before)
    login.state, login.user.state = "active", "registered"
    names: dict[str, Any] = dict(_names(wanted))
    sticky.write(login.user, **names)


def _names(wanted: Parameters) -> dict[str, str]:
    return {name: value for name in _NAMES if (value := text(wanted, name))}


def _refused(attribute: str, kind: str, message: str) -> Refusal:
    """The errors of every object that a create touches, most of them empty."""
    problem = [{"attribute": attribute, "type": kind, "message": message}]
    of_objects = {"user": {}, "pseudonym": {attribute: problem}, "observee": {}, "pairing_code": {}, "recaptcha": None}
    return Refusal(400, {"errors": of_objects})


def update(call: Call) -> Answer:
    """Names become sticky. ``event`` suspends or unsuspends the logins that the caller may delete; one's own it leaves alone."""
    user = call.user()
    wanted = tree(call.parameters, "user")
    if not call.token.may("manage_user_logins") or set(wanted) - _KNOWN:
        raise errors.unauthorized(call.settings.unauthorized_status)
    event = text(wanted, "event")
    if event in ("suspend", "unsuspend") and user is not call.token.user:
        for login in user.pseudonyms:
            if login.state != "deleted" and call.may_delete(login):
                sticky.write(login, state="suspended" if event == "suspend" else "active")
    names: dict[str, Any] = dict(_names(wanted))
    if "name" in names and "sortable_name" not in names and user.sortable_name == last_name_first(user.name):
        names["sortable_name"] = last_name_first(names["name"])
    sticky.write(user, override=override(call), **names)
    if address := text(wanted, "email"):
        channels.make_default(user, address)
    return Answer(rendering.user_with_address(user, call.view))


def remove_from_account(call: Call) -> Answer:
    """All logins and all enrollments go, those made by hand too (``app/models/user.rb#remove_from_root_account``)."""
    call.account()
    call.caller.require("manage_user_logins")
    user = call.user()
    if not all(call.may_delete(login) for login in user.pseudonyms if login.state != "deleted"):
        raise errors.unauthorized(call.settings.unauthorized_status)
    shown = rendering.user(user, call.view)
    for row in user.enrollments:
        if row.state != "deleted":
            call.world.journal.record(leaving.move(call.world, row, "deleted").rows)
    for login in user.pseudonyms:
        login.state = "deleted"
    return Answer(shown)


ROUTES = [
    Route("GET", "users/:user", "users.get", show),
    Route("GET", "users/:user/profile", "users.get", profile),
    Route("PUT", "users/:user", "users.update", update),
    Route("GET", "accounts/:account/users", "users.list", list_in_account),
    Route("POST", "accounts/:account/users", "users.create", create),
    Route("DELETE", "accounts/:account/users/:user", "users.delete", remove_from_account),
]
