"""The student system: rows with a true order, what they mean for Canvas, and messages that have to be delivered.

Written against the registrar's default policy and PeopleSoft's meaning of its columns, without using the product's code: it is
the oracle.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from schemas import keys
from schemas.events import OrderToken
from services.publisher.changes import Change
from tests.simulation.database import EPOCH_SECONDS
from tests.simulation.lms import SeatName

TENANT, INSTITUTION, TERM = "main", "PSUNV", "1259"
STUDENT, AUDITOR, TEACHER, ASSISTANT = "StudentEnrollment", "Auditor", "TeacherEnrollment", "TaEnrollment"
_RANK = ("enrolled", "withdrawn", "waitlisted", "dropped")
_STATES = {
    "enrolled": "active",
    "withdrawn": "inactive",
    "waitlisted": None,
    "dropped": "deleted",
    "cancelled": "deleted",
}
_CHANNEL = "ib:PSFT_CS"


@dataclass
class Row:
    """One row of a table of the SIS."""

    record: str
    key: dict[str, str]
    columns: dict[str, str]
    deleted: bool = False


@dataclass
class Message:
    """Something that the SIS sends until it hears 2xx."""

    number: int
    changes: list[Change]
    delivered: bool = False
    under_way: int = 0
    attempts: int = 0


@dataclass
class Sis:
    """The whole school. Positions are its own clock in microseconds, strictly increasing."""

    random: random.Random
    people: list[str]
    sections: dict[str, str]
    """Section to course."""
    now: float = 0.0
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    history: dict[SeatName, list[str]] = field(default_factory=dict)
    """Per seat every state that it should ever have had, in the order of the SIS."""
    tangled: set[tuple[str, str | None]] = field(default_factory=set)
    """Section and person, or None for everybody, those who come later too: what they have there hangs on several rows."""
    withdrew: set[tuple[str, str]] = field(default_factory=set)
    """Person and course: of their sections there what one says may depend on all."""
    newest: dict[tuple[str, str], Change] = field(default_factory=dict)
    """Of each row what was last said."""
    _position: int = 0

    # --- what people do ---

    def set_student(self, person: str, section: str, status: str, *, career: str = "UGRD", auditor: bool = False) -> list[Change]:
        """`status`: enrolled, dropped, withdrawn, waitlisted, or gone (the row is deleted)."""
        key = {"EMPLID": person, "ACAD_CAREER": career, "INSTITUTION": INSTITUTION, "STRM": TERM, "CLASS_NBR": section}
        columns = {
            "STDNT_ENRL_STATUS": {"dropped": "D", "waitlisted": "W"}.get(status, "E"),
            "ENRL_STATUS_REASON": {"withdrawn": "WDRW"}.get(status, ""),
            "AUDITOR": "Y" if auditor else "N",
            "ENRL_DROP_DT": self._today() if status == "dropped" else "",
        }
        row = Row("STDNT_ENRL", key, columns, deleted=status == "gone")
        entity = keys.enrollment_key(TENANT, INSTITUTION, TERM, section, person, "learner")
        if career != "UGRD":
            self._tangle(section, person)
        if status == "withdrawn":
            self.withdrew.add((person, self.sections[section]))
        change = self._commit(row, entity)
        sections = {row.key["CLASS_NBR"] for row in self.rows.values() if row.key.get("EMPLID") == person}
        if any(other != section and self.sections[other] == self.sections[section] for other in sections):
            self._tangle_course(section, person)
        return [change]

    def set_class(self, section: str, status: str) -> list[Change]:
        """`status`: A or X."""
        row = Row("CLASS_TBL", self._class_key(section), self._class_columns(section, status))
        known = self.rows.get(("CLASS_TBL", keys.join(*_sorted(row.key))))
        if known is not None and known.columns["CLASS_STAT"] != status:
            self._tangle(section)
        return [self._commit(row, keys.section_key(TENANT, INSTITUTION, TERM, section))]

    def reuse_number(self, section: str, course: str) -> tuple[list[Change], list[Change]]:
        """The number is a class's of another course by now: the old row goes, and the new one comes."""
        entity = keys.section_key(TENANT, INSTITUTION, TERM, section)
        old, columns = self.sections[section], self._class_columns(section, "A")
        for other, of in self.sections.items():
            if of in (old, course):
                self._tangle(other)
        self.withdrew |= {(person, course) for person, of in self.withdrew if of == old}
        gone = self._commit(Row("CLASS_TBL", self._class_key(section), columns, deleted=True), entity)
        self.sections[section] = course
        return [gone], self.set_class(section, "A")

    def set_instructor(self, section: str, number: str, person: str | None, role: str = "PI") -> list[Change]:
        """The row of one meeting pattern names another person, or is deleted (its key does not say of whom)."""
        key = self._class_key(section) | {"CLASS_MTG_NBR": "1", "INSTR_ASSIGN_SEQ": number}
        known = self.rows.get(("CLASS_INSTR", keys.join(*_sorted(key))))
        if person is None and (known is None or known.deleted):
            return []
        for one in {person, known.columns["EMPLID"] if known else None} - {None}:
            self._tangle(section, one)
        if person is None:
            return [self._commit(Row("CLASS_INSTR", key, dict(known.columns) if known else {}, deleted=True), None)]
        columns = {"EMPLID": person, "INSTR_ROLE": role, "INSTITUTION": INSTITUTION, "CLASS_NBR": section}
        return [
            self._commit(
                Row("CLASS_INSTR", key, columns), keys.enrollment_key(TENANT, INSTITUTION, TERM, section, person, "staff")
            )
        ]

    def _today(self) -> str:
        return f"{datetime.fromtimestamp(EPOCH_SECONDS + self.now, UTC):%Y-%m-%d}"

    def _class_key(self, section: str) -> dict[str, str]:
        course = self.sections[section]
        return {"CRSE_ID": course, "CRSE_OFFER_NBR": "1", "STRM": TERM, "SESSION_CODE": "1", "CLASS_SECTION": section}

    def _class_columns(self, section: str, status: str) -> dict[str, str]:
        component = "LAB" if int(section) % 3 == 0 else "LEC"
        return {"INSTITUTION": INSTITUTION, "CLASS_NBR": section, "CLASS_STAT": status, "SSR_COMPONENT": component}

    def _commit(self, row: Row, entity: keys.EntityKey | None) -> Change:
        name = (row.record, keys.join(*_sorted(row.key)))
        known = self.rows.get(name)
        if row.deleted and known is not None:
            row.columns = known.columns
        self.rows[name] = row
        self._note()
        columns = {} if row.deleted else dict(row.columns)
        self.newest[name] = Change(TENANT, row.record, row.key, columns, entity, self._token(), row.deleted)
        return self.newest[name]

    def _token(self) -> OrderToken:
        self._position = max(self._position + 1, int(self.now * 1_000_000))
        at = datetime.fromtimestamp(EPOCH_SECONDS, UTC) + timedelta(microseconds=self._position)
        return OrderToken(channel=_CHANNEL, position=self._position, as_of_from=at, as_of_to=at)

    def send(self, changes: list[Change]) -> None:
        if changes:
            self.messages.append(Message(len(self.messages), changes))

    def extract(self) -> None:
        """A full extract of the enrollments as they are now, in one message."""
        at = datetime.fromtimestamp(EPOCH_SECONDS + self.now, UTC)
        token = OrderToken(channel="snapshot:1", as_of_from=at - timedelta(minutes=15), as_of_to=at, snapshot=True)
        found = []
        for row in self.rows.values():
            if row.record == "STDNT_ENRL" and not row.deleted:
                entity = keys.enrollment_key(TENANT, INSTITUTION, TERM, row.key["CLASS_NBR"], row.key["EMPLID"], "learner")
                found.append(Change(TENANT, row.record, row.key, dict(row.columns), entity, token))
        self.send(found)

    def repeat(self, names: Iterable[tuple[str, str]]) -> None:
        """What an operator asks for after the mirror was lost: these rows again, as they are now."""
        for name in sorted(names):
            self.newest[name] = replace(self.newest[name], order=self._token())
            self.send([self.newest[name]])

    def promise_no_order(self, name: tuple[str, str]) -> None:
        """Of what hangs on this row only the end is to be checked."""
        columns = self.rows[name].key | self.rows[name].columns
        self._tangle(columns.get("CLASS_NBR", columns.get("CLASS_SECTION", "")), columns.get("EMPLID"))

    def promise_no_order_in(self, section: str, person: str) -> None:
        """Somebody else decides about the person in the class as well: only the end is to be checked."""
        self._tangle(section, person)
        self._tangle_course(section, person)

    def promises_order(self, seat: SeatName) -> bool:
        """Whether the seat hangs on one row; no order is promised between rows, so of other seats only the end is checked."""
        return self.tangled.isdisjoint({(seat.section, seat.user), (seat.section, None)})

    # --- what it means ---

    def truth(self) -> dict[SeatName, str]:
        """What every seat should be now; seats that were never to exist are not in it."""
        wanted: dict[SeatName, str] = {}
        students: dict[tuple[str, str], list[tuple[str, str]]] = {}
        stands: dict[tuple[str, str], tuple[str, str]] = {}
        cancelled = {
            row.columns["CLASS_NBR"]
            for row in self.rows.values()
            if row.record == "CLASS_TBL" and not row.deleted and row.columns["CLASS_STAT"] == "X"
        }
        for row in self.rows.values():
            if row.record == "STDNT_ENRL":
                status = "dropped" if row.deleted else _status(row.columns)
                role = AUDITOR if row.columns.get("AUDITOR") == "Y" else STUDENT
                place = (row.key["CLASS_NBR"], row.key["EMPLID"])
                # A deleted row counts only when no other is left; then it means dropped.
                students.setdefault(place, []).append((status if not row.deleted else "deleted", role))
            elif row.record == "CLASS_INSTR" and not row.deleted:
                role = ASSISTANT if row.columns["INSTR_ROLE"] == "TA" else TEACHER
                section = row.columns["CLASS_NBR"]
                person = row.columns["EMPLID"]
                if role == ASSISTANT and SeatName(_section(section), person, TEACHER) in wanted:
                    continue  # one person, one role in a class: the strongest
                wanted.pop(SeatName(_section(section), person, ASSISTANT), None)
                wanted[SeatName(_section(section), person, role)] = "deleted" if section in cancelled else "active"
        for (section, person), rows in students.items():
            live = [row for row in rows if row[0] != "deleted"]
            if not live:
                continue
            status, role = min(live, key=lambda row: (_RANK.index(row[0]), row[1] != STUDENT))
            stands[section, person] = ("cancelled" if section in cancelled and status != "waitlisted" else status, role)
        classes = self._classes()
        lectures: dict[tuple[str, str], set[str]] = {}
        for (section, person), (status, _) in stands.items():
            course, component = classes.get(section, ("", ""))
            if component == "LEC":
                lectures.setdefault((person, course), set()).add(status)
        for (section, person), (status, role) in stands.items():
            course, component = classes.get(section, ("", ""))
            of_lectures = lectures.get((person, course), set())
            # A laboratory does not say that somebody has withdrawn from the lecture.
            follows = component == "LAB" and status == "enrolled" and "enrolled" not in of_lectures
            state = _STATES["withdrawn" if follows and "withdrawn" in of_lectures else status]
            if state is not None:
                wanted[SeatName(_section(section), person, role)] = state
        return self._without_left_behind(wanted, classes)

    def _without_left_behind(self, wanted: dict[SeatName, str], classes: dict[str, tuple[str, str]]) -> dict[SeatName, str]:
        """Nobody has left one section of a course and is in another."""
        courses = {_section(section): course for section, (course, _) in classes.items()}
        present = {
            (seat.user, courses.get(seat.section))
            for seat, state in wanted.items()
            if state == "active" and seat.role in (STUDENT, AUDITOR)
        }
        return {
            seat: "deleted" if state == "inactive" and (seat.user, courses.get(seat.section, "?")) in present else state
            for seat, state in wanted.items()
        }

    def _classes(self) -> dict[str, tuple[str, str]]:
        """Course and component of every class that was told of."""
        return {
            row.columns["CLASS_NBR"]: (row.key["CRSE_ID"], row.columns["SSR_COMPONENT"])
            for row in self.rows.values()
            if row.record == "CLASS_TBL" and not row.deleted
        }

    def _note(self) -> None:
        wanted = self.truth()
        for seat in wanted.keys() | self.history.keys():
            state = wanted.get(seat, "deleted")
            states = self.history.setdefault(seat, ["deleted"])
            if states[-1] != state:
                states.append(state)

    def _tangle_course(self, section: str, person: str) -> None:
        """Once somebody has withdrawn in a course, what their sections of it are depends on one another."""
        course = self.sections[section]
        if (person, course) in self.withdrew:
            for other, of in self.sections.items():
                if of == course:
                    self._tangle(other, person)

    def _tangle(self, section: str, person: str | None = None) -> None:
        self.tangled.add((_section(section), person))


def _section(number: str) -> str:
    return f"{INSTITUTION}-{TERM}-{number}"


section_name = _section


def _sorted(key: dict[str, str]) -> list[str]:
    return [value for _, value in sorted(key.items())]


def _status(columns: dict[str, str]) -> str:
    letter = columns["STDNT_ENRL_STATUS"]
    if letter == "W":
        return "waitlisted"
    if letter == "D":
        return "dropped"
    return "withdrawn" if columns["ENRL_STATUS_REASON"] == "WDRW" else "enrolled"
