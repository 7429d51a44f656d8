"""The LMS itself: people, courses, enrolments, roles, and the functions that a caller has. No HTTP."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Method = Literal["manual", "self"]
"""What enrolled somebody: a call of ours, or the person themselves; calls of ours touch only the former."""
Parameters = Mapping[str, Any]
ACTIVE, SUSPENDED = 0, 1
ROLES = {"editingteacher": 3, "teacher": 4, "student": 5}
"""Ids of a fresh installation by short name."""
CHANGES = frozenset({"enrol_manual_enrol_users", "enrol_manual_unenrol_users", "core_role_unassign_roles"})
"""Functions that change something; they answer with None."""
_EXCEPTIONS = {
    "accessexception": "webservice_access_exception",
    "codingerror": "coding_exception",
    "dmlwriteexception": "dml_write_exception",
    "invalidparameter": "invalid_parameter_exception",
    "invalidrecord": "dml_missing_record_exception",
    "nopermissions": "required_capability_exception",
}
_USER_FIELDS = frozenset({"id", "username", "fullname", "idnumber", "roles"})


class Complaint(Exception):
    """An answer of the LMS that is an error."""

    def __init__(self, errorcode: str) -> None:
        super().__init__(errorcode)
        exception = _EXCEPTIONS.get(errorcode, "moodle_exception")
        self.body = {"exception": exception, "errorcode": errorcode, "message": "In the words of the site's language"}


class Place(NamedTuple):
    """One person in one course, by internal ids."""

    user: int
    course: int


class MoodleShapedLms:
    """Everything in memory. A test may look and arrange between two calls."""

    def __init__(self) -> None:
        self._ids = itertools.count(3)
        self.users: dict[int, str] = {}
        """Id → idnumber, which nothing keeps unique."""
        self.courses: dict[int, str] = {}
        self.without_manual_method: set[int] = set()
        self.enrolments: dict[tuple[Place, Method], int] = {}
        """→ `ACTIVE` or `SUSPENDED`. A removed enrolment leaves nothing."""
        self.roles: dict[Place, set[int]] = {}
        self.may_change = True
        self.may_see_people = True
        """Without it people are not refused but invisible."""
        self.changes = 0
        """Changing calls that were carried out, also those that found nothing to do."""

    # For tests

    def add_user(self, idnumber: str) -> int:
        """A new account; there may be one with this idnumber already."""
        return _add(self.users, next(self._ids), idnumber)

    def add_course(self, idnumber: str) -> int:
        """A new course in which calls may enrol."""
        return _add(self.courses, next(self._ids), idnumber)

    def enrol(self, place: Place, role: str, method: Method = "manual", status: int = ACTIVE) -> None:
        """As if somebody else had done it."""
        self.enrolments[place, method] = status
        self.roles.setdefault(place, set()).add(ROLES[role])

    def statuses(self, place: Place) -> list[int]:
        """Of all enrolments of this person in this course."""
        return [status for (where, _), status in list(self.enrolments.items()) if where == place]

    # For callers

    def call(self, function: str, parameters: Parameters) -> Any:
        """The answer as it is put into JSON; raises `Complaint`."""
        functions: dict[str, Callable[[Parameters], Any]] = {
            "core_user_get_users_by_field": self._users_by_field,
            "core_course_get_courses_by_field": self._courses_by_field,
            "core_enrol_get_enrolled_users": self._enrolled_users,
            "core_enrol_get_users_courses": self._users_courses,
            "enrol_manual_enrol_users": self._enrol_users,
            "enrol_manual_unenrol_users": self._unenrol_users,
            "core_role_unassign_roles": self._unassign_roles,
        }
        if function not in functions:
            raise Complaint("accessexception")
        answer = functions[function](parameters)
        self.changes += function in CHANGES
        return answer

    def _users_by_field(self, parameters: Parameters) -> list[dict[str, Any]]:
        field, values = _exactly(parameters, "field", "values")
        if field != "idnumber":
            raise Complaint("invalidparameter")
        return [self._person(user) for user, idnumber in self.users.items() if self.may_see_people and idnumber in _list(values)]

    def _courses_by_field(self, parameters: Parameters) -> dict[str, Any]:
        field, value = _exactly(parameters, "field", "value")
        if field != "idnumber":
            raise Complaint("invalidparameter")
        return {"courses": [self._course(course) for course, it in self.courses.items() if it == value], "warnings": []}

    def _enrolled_users(self, parameters: Parameters) -> list[dict[str, Any]]:
        """Active and suspended people alike, and no word of which they are."""
        course, options = _exactly(parameters, "courseid", "options")
        if _int(course) not in self.courses:
            raise Complaint("invalidrecord")
        wanted = {option["name"]: option["value"] for option in _list(options)}
        fields = set(wanted.get("userfields", "id,username,fullname,idnumber,roles").split(","))
        if not fields <= _USER_FIELDS:
            raise Complaint("invaliduserfield")
        places = [Place(user, _int(course)) for user in self.users if self.may_see_people]
        listed = [place for place in places if self._is_listed(place, only_active=wanted.get("onlyactive") == "1")]
        return [{name: it for name, it in self._member(place).items() if name in fields} for place in listed]

    def _users_courses(self, parameters: Parameters) -> list[dict[str, Any]]:
        """Where this person is active."""
        user, _ = _exactly(parameters, "userid", "returnusercount")
        places = [Place(_int(user), course) for course in self.courses]
        return [self._course(place.course) for place in places if self._is_listed(place, only_active=True)]

    def _enrol_users(self, parameters: Parameters) -> None:
        """Overwrites the status, adds the role. What is omitted is active."""
        rows = [_row(row, "roleid", "userid", "courseid", suspend=ACTIVE) for row in _list(_exactly(parameters, "enrolments")[0])]
        for row in rows:
            if row["courseid"] not in self.courses:
                raise Complaint("invalidparameter")
            self._check_may_change()
            if row["roleid"] not in ROLES.values():
                raise Complaint("wsusercannotassign")
            self._check_manual_method(row["courseid"])
            if row["userid"] not in self.users:
                raise Complaint("codingerror")
        for row in rows:
            place = Place(row["userid"], row["courseid"])
            self.enrolments[place, "manual"] = row["suspend"]
            self.roles.setdefault(place, set()).add(row["roleid"])

    def _unenrol_users(self, parameters: Parameters) -> None:
        """Silently leaves alone whom another method enrolled; roles stay as long as any enrolment does."""
        rows = [_row(row, "userid", "courseid") for row in _list(_exactly(parameters, "enrolments")[0])]
        for row in rows:
            if row["userid"] not in self.users:
                raise Complaint("invalidparameter")
            if row["courseid"] not in self.courses:
                raise Complaint("invalidrecord")
            self._check_may_change()
            self._check_manual_method(row["courseid"])
        for row in rows:
            place = Place(row["userid"], row["courseid"])
            self.enrolments.pop((place, "manual"), None)
            if not self.statuses(place):
                self.roles.pop(place, None)

    def _unassign_roles(self, parameters: Parameters) -> None:
        for row in _list(_exactly(parameters, "unassignments")[0]):
            if row.get("contextlevel") != "course":
                raise Complaint("invalidparameter")
            self._check_may_change()
            self.roles.get(Place(_int(row["userid"]), _int(row["instanceid"])), set()).discard(_int(row["roleid"]))

    def _check_may_change(self) -> None:
        if not self.may_change:
            raise Complaint("nopermissions")

    def _check_manual_method(self, course: int) -> None:
        if course in self.without_manual_method:
            raise Complaint("wsnoinstance")

    def _is_listed(self, place: Place, *, only_active: bool) -> bool:
        statuses = self.statuses(place)
        return ACTIVE in statuses if only_active else bool(statuses)

    def _person(self, user: int) -> dict[str, Any]:
        return {"id": user, "username": f"u{user}", "fullname": f"First{user} Last{user}", "idnumber": self.users[user]}

    def _member(self, place: Place) -> dict[str, Any]:
        names = {number: name for name, number in ROLES.items()}
        roles = [{"roleid": role, "name": "", "shortname": names[role], "sortorder": 0} for role in self.roles.get(place, ())]
        return self._person(place.user) | {"roles": roles}

    def _course(self, course: int) -> dict[str, Any]:
        methods = [] if course in self.without_manual_method else ["manual"]
        return {"id": course, "shortname": f"C{course}", "idnumber": self.courses[course], "enrollmentmethods": methods}


def _add(table: dict[int, str], new: int, idnumber: str) -> int:
    table[new] = idnumber
    return new


def _exactly(parameters: Parameters, *names: str) -> list[Any]:
    """The values of these parameters; a missing one, or one more, refuses the whole call."""
    if set(parameters) != set(names):
        raise Complaint("invalidparameter")
    return [parameters[name] for name in names]


def _list(value: Any) -> list[Any]:
    """``{"0": a, "1": b}`` as PHP reads numbered fields."""
    if not isinstance(value, dict) or list(value) != [str(number) for number in range(len(value))]:
        raise Complaint("invalidparameter")
    return list(value.values())


def _row(fields: Parameters, *required: str, **optional: int) -> dict[str, int]:
    if not set(required) <= set(fields) <= {*required, *optional}:
        raise Complaint("invalidparameter")
    return {name: _int(fields.get(name, optional.get(name))) for name in (*required, *optional)}


def _int(value: Any) -> int:
    if isinstance(value, int):
        return value
    if not isinstance(value, str) or not value.isdecimal():
        raise Complaint("invalidparameter")
    return int(value)
