"""Terms, courses, sections, users and their logins of one Canvas account, by REST.

Facts: ``app/controllers/terms_controller.rb``, ``courses_controller.rb``, ``sections_controller.rb``, ``users_controller.rb``,
``pseudonyms_controller.rb``. Terms and people belong to the root account, courses to the account that was configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from services.consumer.nouns import ObjectKind
from services.consumer.targets.canvas.addressing import by_sis_id
from services.consumer.targets.canvas.answers import NotFound, Payload
from services.consumer.targets.canvas.client import CanvasClient, Operation
from services.consumer.targets.objects import Attribute, NoObject, NoParent, ObjectOutcome, ShownObject, WantedObject
from services.consumer.targets.port import Failure, IdentityMismatch, NoPermission, Refused, ServerFault, WrongShape

_ROOT = "accounts/self"
_OF_THE_LOGIN: tuple[Attribute, ...] = ("login", "state")
_KEEP_WHAT_IS_STICKY = ("override_sis_stickiness", "false")
"""Sticky is what somebody changed outside of imports, or made the object with (``lib/sticky_sis_fields.rb``). Asked of people:
of a section Canvas then leaves name and dates alone, sticky or not (``sections_controller.rb#course_section_params``)."""
_CALLED: Mapping[ObjectKind, Mapping[Attribute, str]] = {
    "term": {"name": "name", "starts": "start_at", "ends": "end_at"},
    "course": {"name": "name", "code": "course_code"},
    "section": {"name": "name"},
    "person": {"name": "name", "email": "email"},
}
"""Canvas's names of what an object shows itself; a person's other attributes are those of the login."""
_LOGIN_CALLED: Mapping[Attribute, str] = {"login": "unique_id", "state": "workflow_state"}
_FORM: Mapping[ObjectKind, str] = {"term": "enrollment_term", "course": "course", "section": "course_section", "person": "user"}
_SIS_ID: Mapping[ObjectKind, str] = {
    "term": "sis_term_id",
    "course": "sis_course_id",
    "section": "sis_section_id",
    "person": "sis_user_id",
}


class _Login(NamedTuple):
    id: str
    values: dict[Attribute, str]


class CanvasObjects:
    """`ObjectTarget` for one Canvas account."""

    kinds: frozenset[ObjectKind] = frozenset({"term", "course", "section", "person"})

    def __init__(self, client: CanvasClient, account: str, call_timeout_seconds: float) -> None:
        self._client = client
        self._account = account
        self._timeout = call_timeout_seconds
        self._rights: frozenset[str] = frozenset()
        """Those that the token has been found to have."""

    # Reading

    async def find(self, wanted: WantedObject) -> ShownObject | NoObject | Failure:
        """By SIS id; what was deleted is not there. A person's login is a second call, made only where it matters."""
        operation = Operation(self._timeout)
        return replace(await self._find(wanted, operation), usage=operation.usage)

    async def _find(self, wanted: WantedObject, operation: Operation) -> ShownObject | NoObject | Failure:
        result = await self._client.get(_path(wanted), operation)
        if isinstance(result, NotFound):
            return NoObject()
        if not isinstance(result, Payload):
            return result
        shown = _shown(wanted, result.value)
        if isinstance(shown, ShownObject) and _is_deleted_term(wanted, result.value):
            return NoObject()
        if not isinstance(shown, ShownObject) or wanted.values.keys().isdisjoint(_OF_THE_LOGIN):
            return shown
        login = await self._login(wanted, operation)
        return replace(shown, values={**shown.values, **login.values}) if isinstance(login, _Login) else login

    async def _login(self, wanted: WantedObject, operation: Operation) -> _Login | Failure:
        """The one that carries the SIS id: a person may have others, which are nobody's business here."""
        path = f"users/{by_sis_id('user', wanted.sis_id)}/logins"
        result = await self._client.get(path, operation, [("per_page", "100")])
        if isinstance(result, NotFound):
            return ServerFault("not_found_though_there")
        if not isinstance(result, Payload):
            return result
        if not isinstance(result.value, list):
            return WrongShape("login_list")
        for row in result.value:
            if isinstance(row, dict) and row.get("sis_user_id") == wanted.sis_id and "id" in row:
                return _Login(str(row["id"]), _values(row, _LOGIN_CALLED))
        return IdentityMismatch("object")

    # Making

    async def make(self, wanted: WantedObject) -> ObjectOutcome:
        """Without mails, and published by nobody. Canvas drops a SIS id without a word where the token may not set it, and would
        make one more object at every attempt; so that is asked first."""
        operation = Operation(self._timeout)
        return replace(await self._make(wanted, operation), usage=operation.usage)

    async def _make(self, wanted: WantedObject, operation: Operation) -> ObjectOutcome:
        refusal = await self._right_lacking(wanted, operation)
        if refusal is not None:
            return refusal
        result = await self._client.change("POST", self._collection(wanted), operation, form=_new(wanted))
        if isinstance(result, NotFound):
            return await self._no_parent(wanted, operation)
        if not isinstance(result, Payload):
            return result
        return _made(wanted, result.value)

    async def _right_lacking(self, wanted: WantedObject, operation: Operation) -> Failure | None:
        """None when the token may set SIS ids and, where an address is wanted, have it taken as confirmed.

        ``accounts_controller.rb#permissions`` answers true or false for every name; who has no role in the account is refused.
        """
        needed = {"manage_sis", "manage_students"} if wanted.values.get("email") else {"manage_sis"}
        if needed <= self._rights:
            return None
        asked = [("permissions[]", name) for name in sorted(needed)]
        result = await self._client.get(f"{_ROOT}/permissions", operation, asked)
        if isinstance(result, NotFound):
            return WrongShape("permissions")
        if not isinstance(result, Payload):
            return result
        answers = result.value if isinstance(result.value, dict) else {}
        self._rights |= {name for name in needed if answers.get(name) in (True, "true")}
        return None if needed <= self._rights else NoPermission(whole_token=False)

    def _collection(self, wanted: WantedObject) -> str:
        match wanted.kind:
            case "term":
                return f"{_ROOT}/terms"
            case "course":
                return f"accounts/{self._account}/courses"
            case "section":
                return f"courses/{by_sis_id('course', wanted.inside or '')}/sections"
            case "person":
                return f"{_ROOT}/users"

    async def _no_parent(self, wanted: WantedObject, operation: Operation) -> NoParent | Failure:
        """What a 404 to a new object was about: it does not say."""
        if wanted.inside is None or wanted.kind not in ("course", "section"):
            return Refused("unknown_account")
        kind: ObjectKind = "term" if wanted.kind == "course" else "course"
        parent = await self._find(WantedObject(kind, wanted.inside, {}), operation)
        if isinstance(parent, NoObject):
            return NoParent("term" if kind == "term" else "course")
        return ServerFault("not_found_though_there") if isinstance(parent, ShownObject) else parent

    # Changing

    async def change(
        self, wanted: WantedObject, seen: ShownObject, attributes: frozenset[Attribute], *, gently: bool
    ) -> ObjectOutcome:
        """The object's own attributes first; those of a login in a call of their own. To suspend one takes the right to manage
        SIS ids (``app/models/pseudonym.rb``)."""
        operation = Operation(self._timeout)
        return replace(await self._change(wanted, seen, attributes, operation, gently=gently), usage=operation.usage)

    async def _change(
        self, wanted: WantedObject, seen: ShownObject, attributes: frozenset[Attribute], operation: Operation, *, gently: bool
    ) -> ObjectOutcome:
        params = [_KEEP_WHAT_IS_STICKY] if gently else []
        own = {called: wanted.values[name] for name, called in _CALLED[wanted.kind].items() if name in attributes}
        if own:
            form = {f"{_FORM[wanted.kind]}[{called}]": value for called, value in own.items()}
            result = await self._client.change("PUT", _path(wanted), operation, params=params, form=form)
        else:
            login = await self._login(wanted, operation)
            if not isinstance(login, _Login):
                return login
            form = {f"login[{called}]": wanted.values[name] for name, called in _LOGIN_CALLED.items() if name in attributes}
            result = await self._client.change("PUT", f"{_ROOT}/logins/{login.id}", operation, params=params, form=form)
        if isinstance(result, NotFound):
            return ServerFault("not_found_though_there")
        if not isinstance(result, Payload):
            return result
        shown = _shown(wanted, result.value) if own else _of_login(wanted, result.value)
        if not isinstance(shown, ShownObject):
            return shown
        return (
            replace(shown, values={**seen.values, **shown.values}) if shown.lms_id == seen.lms_id else IdentityMismatch("object")
        )

    async def rekey(self, wanted: WantedObject, seen: ShownObject, sis_id: str) -> ObjectOutcome:
        """By the login that carries the id; a blank one takes it off (``pseudonyms_controller.rb``)."""
        operation = Operation(self._timeout)
        return replace(await self._rekey(wanted, seen, sis_id, operation), usage=operation.usage)

    async def _rekey(self, wanted: WantedObject, seen: ShownObject, sis_id: str, operation: Operation) -> ObjectOutcome:
        login = await self._login(wanted, operation)
        if not isinstance(login, _Login):
            return login
        form = {"login[sis_user_id]": sis_id}
        result = await self._client.change("PUT", f"{_ROOT}/logins/{login.id}", operation, form=form)
        if isinstance(result, NotFound):
            return ServerFault("not_found_though_there")
        if not isinstance(result, Payload):
            return result
        rekeyed = _of_login(replace(wanted, sis_id=sis_id), result.value)
        return rekeyed if not isinstance(rekeyed, ShownObject) or rekeyed.lms_id == seen.lms_id else IdentityMismatch("object")


def _path(wanted: WantedObject) -> str:
    match wanted.kind:
        case "term":
            return f"{_ROOT}/terms/{by_sis_id('term', wanted.sis_id)}"
        case "course":
            return f"courses/{by_sis_id('course', wanted.sis_id)}"
        case "section":
            return f"sections/{by_sis_id('section', wanted.sis_id)}"
        case "person":
            return f"users/{by_sis_id('user', wanted.sis_id)}"


def _new(wanted: WantedObject) -> dict[str, str]:
    """The form of a new object."""
    form = {
        f"{_FORM[wanted.kind]}[{called}]": wanted.values[name]
        for name, called in _CALLED[wanted.kind].items()
        if name in wanted.values
    }
    if wanted.kind == "person":
        # Registered at once, where Canvas would wait for the person to do so (``users_controller.rb#create_user``).
        return form | {
            "user[skip_registration]": "true",
            "pseudonym[unique_id]": wanted.values["login"],
            "pseudonym[sis_user_id]": wanted.sis_id,
            "pseudonym[send_confirmation]": "false",
            **_address(form.pop("user[email]", "")),
        }
    form[f"{_FORM[wanted.kind]}[{_SIS_ID[wanted.kind]}]"] = wanted.sis_id
    if wanted.kind == "course" and wanted.inside is not None:
        form["course[term_id]"] = by_sis_id("term", wanted.inside)
    return form


def _address(email: str) -> dict[str, str]:
    """Of a new user: taken as confirmed, so that nobody is asked to confirm it. A blank one is none; left out, Canvas takes a
    login that looks like one, and writes to whoever has it already (``users_controller.rb#create_user``)."""
    named = {"type": "email", "address": email, "skip_confirmation": "true"}
    return {f"communication_channel[{name}]": value for name, value in named.items()}


def _shown(wanted: WantedObject, body: Any) -> ShownObject | Failure:
    """An object's JSON, about the object that was meant. A user shows the SIS id of the login that Canvas prefers
    (``lib/api/v1/user.rb#user_json``), which need not be the one that was asked for."""
    if not isinstance(body, dict) or "id" not in body:
        return WrongShape(wanted.kind)
    if wanted.kind != "person" and body.get(_SIS_ID[wanted.kind]) != wanted.sis_id:
        # Also of a token that may not see SIS ids: what cannot be checked confirms nothing.
        return IdentityMismatch("object")
    if "email" in wanted.values and "email" not in body:
        # The token may not see addresses (``lib/api/v1/user.rb#user_json``): nobody could tell whose this one is.
        return NoPermission(whole_token=False)
    return ShownObject(
        str(body["id"]), {name: value for name, value in _values(body, _CALLED[wanted.kind]).items() if name in wanted.values}
    )


def _is_deleted_term(wanted: WantedObject, body: Mapping[str, Any]) -> bool:
    """Unlike anything else that was deleted, a term is still found (``terms_api_controller.rb#show``)."""
    return wanted.kind == "term" and body.get("workflow_state") == "deleted"


def _made(wanted: WantedObject, body: Any) -> ShownObject | Failure:
    """A new object, which has exactly the SIS id that it was given. Of a person no address is shown (``users_controller.rb``,
    `create_user`), and the login only to who may see it; both are as they were sent, or nobody would have been made."""
    if wanted.kind != "person":
        return _shown(wanted, body)
    sent: dict[Attribute, str] = {name: wanted.values[name] for name in ("login", "email") if name in wanted.values}
    values = {name: value for name, value in wanted.values.items() if name not in sent}
    shown = _shown(replace(wanted, values=values), body)
    if not isinstance(shown, ShownObject):
        return shown
    if body.get("sis_user_id") != wanted.sis_id or body.get("login_id", sent["login"]) != sent["login"]:
        return IdentityMismatch("object")
    return replace(shown, values={**shown.values, **sent, "state": "active"})


def _of_login(wanted: WantedObject, body: Any) -> ShownObject | Failure:
    """A login's JSON, about the login that has the SIS id, or none if that is empty."""
    if not isinstance(body, dict) or "user_id" not in body or "sis_user_id" not in body:
        return WrongShape("login")
    if (body["sis_user_id"] or "") != wanted.sis_id:
        return IdentityMismatch("object")
    return ShownObject(str(body["user_id"]), _values(body, _LOGIN_CALLED))


def _values(body: Mapping[str, Any], called: Mapping[Attribute, str]) -> dict[Attribute, str]:
    """Blank for what it does not say."""
    return {name: str(body[field]) if body.get(field) is not None else "" for name, field in called.items()}
