"""`Target` for a Moodle-shaped LMS: a seat is one role of a person in a course, and only a read proves a change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from services.consumer.nouns import MissingKind, Seat, SeatState, satisfied
from services.consumer.targets.port import (
    AlreadySo,
    Done,
    Failure,
    IdentityMismatch,
    NoPermission,
    NotThere,
    Observation,
    Outcome,
    Presence,
    Refused,
    RosterPage,
    RosterRow,
    ServerFault,
    WrongShape,
)
from tests.contract.consumer.targets.moodle_shaped.client import MoodleShapedClient, Operation, Said

_STATES: frozenset[SeatState] = frozenset({"active", "inactive", "deleted"})


class Canary(NamedTuple):
    """A person and a course that are always there. Who may not see them may not see others either, and this LMS says "none" for
    both."""

    user: str
    course: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What the roster of a course says of one person, and which of the roles is the seat's."""

    user: int
    course: int
    role: int
    roles: frozenset[int]
    """Empty when the person is not in the roster."""
    active: bool
    """Of all roles together: an enrolment has one status."""

    @property
    def observation(self) -> Observation:
        """The seat. Enrolments have no id that a caller could read, so course and person name it."""
        if self.role not in self.roles:
            return Observation("absent")
        return Observation("active" if self.active else "inactive", f"{self.course}/{self.user}", str(self.course))


class Change(NamedTuple):
    """A changing call."""

    function: str
    fields: Mapping[str, object]


class MoodleShapedTarget:
    """One account. The port's sections are this LMS's courses."""

    def __init__(self, client: MoodleShapedClient, roles: Mapping[str, int], canary: Canary, call_timeout_seconds: float) -> None:
        """`roles`: ids by name, which no call tells."""
        self._client = client
        self._roles = roles
        self._canary = canary
        self._timeout = call_timeout_seconds

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def read(self, seat: Seat) -> Observation | Failure:
        """See `Target`."""
        operation = Operation(self._timeout)
        entry = await self._find(seat, operation)
        return replace(entry.observation if isinstance(entry, Entry) else entry, usage=operation.usage)

    async def write(self, seat: Seat, wanted: SeatState, seen: Observation) -> Outcome:
        """See `Target`. Looks for itself, because what may be done depends on the person's other roles."""
        operation = Operation(self._timeout)
        outcome = AlreadySo(seen) if satisfied(wanted, seen.state) else await self._step(seat, wanted, operation)
        return replace(outcome, usage=operation.usage)

    async def probe(self, kind: MissingKind, sis_id: str) -> Presence | Failure:
        """See `Target`."""
        operation = Operation(self._timeout)
        found = await (self._user(sis_id, operation) if kind == "user" else self._course(sis_id, operation))
        if found is None or isinstance(found, int):
            return Presence(found is not None, operation.usage)
        return replace(found, usage=operation.usage)

    async def roster(self, lms_section: str, page: str | None = None) -> RosterPage | Failure:
        """See `Target`. All at once; who is active is what a second roster says."""
        operation = Operation(self._timeout)
        return replace(await self._roster(lms_section, operation), usage=operation.usage)

    async def _roster(self, lms_section: str, operation: Operation) -> RosterPage | Failure:
        course = await self._course(lms_section, operation)
        if not isinstance(course, int):
            return NotThere("section") if course is None else course
        people = await self._people(course, operation, userfields="id,idnumber,roles")
        if not isinstance(people, list):
            return people
        active = await self._people(course, operation, userfields="id", onlyactive="1")
        if not isinstance(active, list):
            return active
        return RosterPage(tuple(self._listed(course, people, {person["id"] for person in active})), next_page=None)

    def _listed(self, course: int, people: list[dict[str, Any]], active: set[int]) -> Iterator[RosterRow]:
        names = {number: name for name, number in self._roles.items()}
        for person in people:
            for role in person["roles"]:
                entry = Entry(person["id"], course, role["roleid"], frozenset({role["roleid"]}), person["id"] in active)
                name = names[role["roleid"]]
                yield RosterRow(person["idnumber"] or None, name, name, entry.observation)

    # Changing

    async def _step(self, seat: Seat, wanted: SeatState, operation: Operation) -> Outcome:
        if wanted not in _STATES:
            return Refused("no_such_state")
        entry = await self._find(seat, operation)
        if not isinstance(entry, Entry):
            return entry
        if satisfied(wanted, entry.observation.state):
            return AlreadySo(entry.observation)
        change = _change(entry, wanted)
        return change if isinstance(change, Refused) else await self._made(change, entry, wanted, operation)

    async def _made(self, change: Change, before: Entry, wanted: SeatState, operation: Operation) -> Outcome:
        """The answer says what went wrong, or nothing; never what was done."""
        said = await self._client.change(change.function, change.fields, operation)
        if not isinstance(said, Said):
            return said
        after = await self._entry(before.user, before.course, before.role, operation)
        if not isinstance(after, Entry):
            # Whatever kept us from looking must not read as "nothing was changed".
            return ServerFault("unverified")
        return Done(after.observation) if satisfied(wanted, after.observation.state) else ServerFault("no_effect")

    # Looking

    async def _find(self, seat: Seat, operation: Operation) -> Entry | Failure:
        role = self._roles.get(seat.role)
        if role is None:
            return Refused("unknown_role")
        user = await self._user(seat.lms_user, operation)
        if not isinstance(user, int | None):
            return user
        course = await self._course(seat.lms_section, operation)
        if not isinstance(course, int | None):
            return course
        if user is None or course is None:
            return NotThere("both" if user is course else "user" if user is None else "section")
        return await self._entry(user, course, role, operation)

    async def _user(self, idnumber: str, operation: Operation) -> int | Failure | None:
        """The id of the one account with this idnumber, None without one."""
        fields = {"field": "idnumber", "values[0]": idnumber, "values[1]": self._canary.user}
        rows = await self._rows("core_user_get_users_by_field", fields, operation)
        if not isinstance(rows, list):
            return rows
        if self._canary.user not in [row.get("idnumber") for row in rows]:
            return NoPermission(whole_token=True)
        found = [row["id"] for row in rows if row["idnumber"] == idnumber]
        return IdentityMismatch("user") if len(found) > 1 else next(iter(found), None)

    async def _course(self, idnumber: str, operation: Operation) -> int | Failure | None:
        found = await self._visible_course(idnumber, operation)
        if found is not None:
            return found
        canary = await self._visible_course(self._canary.course, operation)
        if canary is None:
            return NoPermission(whole_token=True)
        return None if isinstance(canary, int) else canary

    async def _visible_course(self, idnumber: str, operation: Operation) -> int | Failure | None:
        fields = {"field": "idnumber", "value": idnumber}
        rows = await self._rows("core_course_get_courses_by_field", fields, operation, within="courses")
        if not isinstance(rows, list):
            return rows
        found = [row["id"] for row in rows if row.get("idnumber") == idnumber]
        return IdentityMismatch("section") if len(found) > 1 else next(iter(found), None)

    async def _entry(self, user: int, course: int, role: int, operation: Operation) -> Entry | Failure:
        """Two calls: the roster does not say who is suspended; a person's courses are those where they are not."""
        people = await self._people(course, operation, userfields="id,roles")
        if not isinstance(people, list):
            return people
        courses = await self._rows("core_enrol_get_users_courses", {"userid": user, "returnusercount": 0}, operation)
        if not isinstance(courses, list):
            return courses
        roles = [it["roleid"] for person in people if person["id"] == user for it in person["roles"]]
        return Entry(user, course, role, frozenset(roles), active=any(row["id"] == course for row in courses))

    async def _people(self, course: int, operation: Operation, **options: str) -> list[dict[str, Any]] | Failure:
        fields: dict[str, object] = {"courseid": course}
        for place, (name, value) in enumerate(options.items()):
            fields |= {f"options[{place}][name]": name, f"options[{place}][value]": value}
        return await self._rows("core_enrol_get_enrolled_users", fields, operation)

    async def _rows(
        self, function: str, fields: Mapping[str, object], operation: Operation, within: str | None = None
    ) -> list[dict[str, Any]] | Failure:
        """An answer that is a list of objects with an id, or has one `within`."""
        said = await self._client.read(function, fields, operation)
        if not isinstance(said, Said):
            return said
        rows = said.value.get(within) if within is not None and isinstance(said.value, dict) else said.value
        if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("id"), int) for row in rows):
            return WrongShape("list")
        return rows


def _change(entry: Entry, wanted: SeatState) -> Change | Refused:
    """The call that takes the seat's role to `wanted`, and no other role of the person with it."""
    user, course, others = entry.user, entry.course, entry.roles - {entry.role}
    if wanted != "deleted":
        if others and entry.active != (wanted == "active"):
            return Refused("shared_status")
        row = {"roleid": entry.role, "userid": user, "courseid": course, "suspend": int(wanted == "inactive")}
        return Change("enrol_manual_enrol_users", _form("enrolments", row))
    if others:
        place = {"roleid": entry.role, "userid": user, "contextlevel": "course", "instanceid": course}
        return Change("core_role_unassign_roles", _form("unassignments", place))
    return Change("enrol_manual_unenrol_users", _form("enrolments", {"userid": user, "courseid": course}))


def _form(name: str, row: Mapping[str, object]) -> Mapping[str, object]:
    return {f"{name}[0][{field}]": value for field, value in row.items()}
