"""A registration morning: about 2,000 changes, the same for the same seed, with everything that makes real mornings hard.

The plan is made in advance by playing each step against the `School`; the school's final tables are the truth. Messages leave
in the order of `post_at`, which differs from the order of their commits where a step says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import NamedTuple

from services.sandbox.sis import messages as rows
from services.sandbox.sis.messages import Message, Note, RowChange
from services.sandbox.sis.school import Enrollment, EnrollmentKey, School, Student, build_school
from services.sandbox.sis.truth import Seat, class_roster, section_id

ENROLLMENTS, _CLASSES, _PEOPLE, _TERMS = "ZZ_ENRL_SYNC", "ZZ_CLASS_SYNC", "PERSON_BASIC_SYNC", "ZZ_TERM_SYNC"
_TICK = 0.001
_PREPARATION = 0.08
"""Share of the morning in which classes and people are announced."""


class Transition(NamedTuple):
    """One seat becoming active or inactive because of one message."""

    seat: Seat
    active: bool
    message: int


@dataclass(frozen=True, slots=True)
class Morning:
    """The plan, and what must be true after it."""

    messages: list[Message]
    """In the order of leaving."""
    school: School
    """The tables after the morning."""
    transitions: list[Transition]
    """In the order of commits."""
    late_people: dict[str, float]
    """EMPLID → seconds after the start when the learning platform gets to know the person."""
    late_sections: dict[str, float]
    """SIS id of the section → the same."""

    @property
    def changes(self) -> int:
        """Changed rows delivered, duplicates included."""
        return sum(message.changes for message in self.messages)

    @property
    def seconds(self) -> float:
        """When the last message leaves."""
        return max(message.post_at for message in self.messages)

    def appears_at(self, seat: Seat) -> float:
        """When the learning platform knows both ends of a seat; 0 when it did from the start."""
        return max(self.late_people.get(seat.person, 0.0), self.late_sections.get(seat.section, 0.0))


@dataclass(slots=True)
class _Planner:
    """Plays steps against the school and writes down what they send."""

    chance: random.Random
    school: School
    today: str
    now: float = 0.0
    sent: list[Message] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    reserved: set[str] = field(default_factory=set)
    """Students whose rows one special step alone may touch, so that its point is not lost."""

    # -- sending ---------------------------------------------------------------------------------------------------------

    def send(
        self,
        operation: str,
        content: Iterable[RowChange],
        before: dict[str, set[Seat]],
        *,
        delay: float = 0.0,
        note: Note = "",
    ) -> Message:
        """Write down one message and the seats that it moves; `before` holds the rosters of the classes it touches."""
        self.now += _TICK
        number = len(self.sent)
        envelope = self.chance.random() < 0.15
        message = Message(number, operation, tuple(content), self.now, self.now + delay, envelope, note)
        self.sent.append(message)
        for class_nbr, old in before.items():
            new = class_roster(self.school, class_nbr)
            moved = [(seat, True) for seat in sorted(new - old)] + [(seat, False) for seat in sorted(old - new)]
            self.transitions += [Transition(seat, active, number) for seat, active in moved]
        return message

    def rosters(self, *class_nbrs: str) -> dict[str, set[Seat]]:
        """The seats of these classes as they are now."""
        return {class_nbr: class_roster(self.school, class_nbr) for class_nbr in class_nbrs}

    def put(self, row: Enrollment, *, delay: float = 0.0, note: Note = "") -> Message:
        """Insert or update one enrolment, and tell."""
        before = self.rosters(row.key.class_nbr)
        action: rows.Action = "C" if row.key in self.school.enrollments else "A"
        self.school.put(row)
        return self.send(ENROLLMENTS, [rows.enrollment_row(row, action)], before, delay=delay, note=note)

    # -- choosing --------------------------------------------------------------------------------------------------------

    def pick(self, *statuses: str, basis: str = "GRD") -> Enrollment | None:
        """Some enrolment in one of these states, in a class that takes place, of a student nobody reserved."""
        found = [
            row
            for row in self.school.enrollments.values()
            if row.status in statuses
            and row.grading_basis == basis
            and row.key.emplid not in self.reserved
            and self.school.classes[row.key.class_nbr].status == "A"
        ]
        return self.chance.choice(found) if found else None

    def free_class(self, emplid: str) -> str | None:
        """A class that takes place and that the student never had."""
        known = {row.key.class_nbr for row in self.school.of_student(emplid)}
        open_classes = [each.class_nbr for each in self.school.classes.values() if each.status == "A"]
        choice = [class_nbr for class_nbr in open_classes if class_nbr not in known]
        return self.chance.choice(choice) if choice else None

    def sibling(self, class_nbr: str, emplid: str) -> str | None:
        """Another section of the same course that the student never had."""
        course = self.school.classes[class_nbr].course_id
        known = {row.key.class_nbr for row in self.school.of_student(emplid)}
        others = (each for each in self.school.classes.values() if each.course_id == course and each.status == "A")
        return next((each.class_nbr for each in others if each.class_nbr not in known), None)

    def enrolled(self, student: Student, class_nbr: str, career: str = "") -> Enrollment:
        """A fresh enrolment row."""
        key = EnrollmentKey(student.emplid, career or student.career, class_nbr)
        return Enrollment(key, "E", "ENRL", added=self.today)

    def dropped(self, row: Enrollment, reason: str = "DROP") -> Enrollment:
        """The same row after a drop."""
        return replace(row, status="D", reason=reason, dropped=self.today)

    def student(self) -> Student:
        """Some student nobody reserved."""
        return self.chance.choice([each for each in self.school.students if each.emplid not in self.reserved])

    def reserve(self) -> Student:
        """A student for one special step alone."""
        student = self.student()
        self.reserved.add(student.emplid)
        return student

    # -- steps -----------------------------------------------------------------------------------------------------------

    def announce_term(self) -> None:
        self.send(_TERMS, [rows.term_row()], {})

    def announce_classes(self, class_nbrs: list[str]) -> None:
        """New classes with their instructors; their seats become active with this message."""
        classes = [self.school.classes[class_nbr] for class_nbr in class_nbrs]
        nobody: dict[str, set[Seat]] = {class_nbr: set() for class_nbr in class_nbrs}
        content = [rows.class_row(each, "A", dict.fromkeys(range(len(each.instructors)), "A")) for each in classes]
        self.send(_CLASSES, content, nobody)

    def announce_people(self, students: list[Student]) -> None:
        self.send(_PEOPLE, [rows.person_row(each) for each in students], {})

    def register(self, student: Student, wanted: int) -> None:
        """A student's shopping cart: a message per class, or one message for all of them."""
        cart: list[Enrollment] = []
        while len(cart) < wanted and (class_nbr := self.free_class(student.emplid)):
            row = self.enrolled(student, class_nbr)
            cart.append(replace(row, status="W", reason="WAIT") if self.chance.random() < 0.08 else row)
            if self.chance.random() < 0.7:
                self.put(cart.pop())
                wanted -= 1
            else:
                self.school.put(cart[-1])
        if cart:
            changed = {row.key.class_nbr for row in cart}
            before = {nbr: self._without(student, nbr) for nbr in sorted(changed)}
            self.send(ENROLLMENTS, [rows.enrollment_row(row, "A") for row in cart], before)

    def _without(self, student: Student, class_nbr: str) -> set[Seat]:
        return {seat for seat in class_roster(self.school, class_nbr) if seat.person != student.emplid}

    def drop(self) -> None:
        if row := self.pick("E"):
            self.put(self.dropped(row))

    def drop_at_once(self) -> None:
        """Second thoughts: added and dropped within a moment."""
        student = self.student()
        if class_nbr := self.free_class(student.emplid):
            row = self.enrolled(student, class_nbr)
            self.put(row)
            self.now += self.chance.uniform(0.05, 0.4)
            self.put(self.dropped(row))

    def delete_row(self) -> None:
        """Staff delete a row; the message carries its key alone."""
        if row := self.pick("E", "D"):
            before = self.rosters(row.key.class_nbr)
            self.school.delete(row.key)
            self.send(ENROLLMENTS, [rows.enrollment_deletion(row.key)], before)

    def swap(self) -> None:
        """One class for another, in two messages whose order of arrival is anybody's guess."""
        row = self.pick("E")
        if row is None:
            return
        emplid = row.key.emplid
        target = self.sibling(row.key.class_nbr, emplid) or self.free_class(emplid)
        if target is None:
            return
        delays = [0.0, self.chance.uniform(0.05, 0.8)]
        self.chance.shuffle(delays)
        self.put(self.dropped(row), delay=delays[0])
        new = Enrollment(row.key._replace(class_nbr=target), "E", "ENRL", added=self.today)
        self.put(new, delay=delays[1])

    def promote(self) -> None:
        if row := self.pick("W"):
            self.put(replace(row, status="E", reason="EWAT"))

    def audit(self) -> None:
        if row := self.pick("E"):
            self.put(replace(row, grading_basis="AUD"))

    def add_again(self) -> None:
        row = self.pick("D")
        if row and not any(each.status == "E" and each.key.class_nbr == row.key.class_nbr for each in self._others(row)):
            self.put(replace(row, status="E", reason="ENRL", dropped=""))

    def _others(self, row: Enrollment) -> Iterable[Enrollment]:
        return (each for each in self.school.of_student(row.key.emplid) if each.key != row.key)

    def touch(self) -> None:
        """Grading, unit changes and the like touch rows without moving anybody."""
        if row := self.pick("E"):
            self.put(replace(row, units=self.chance.choice(["1.00", "2.00", "4.00"])), note="no_op")

    def change_career(self) -> None:
        """A key change (K old, N new): the same person in the same class."""
        row = self.pick("E")
        if row is None:
            return
        career = "UGRD" if row.key.career == "GRAD" else "GRAD"
        new = replace(row, key=row.key._replace(career=career))
        if new.key in self.school.enrollments:
            return
        before = self.rosters(row.key.class_nbr)
        self.school.delete(row.key)
        self.school.put(new)
        pair = [rows.enrollment_row(row, "K"), rows.enrollment_row(new, "N")]
        self.send(ENROLLMENTS, pair, before, note="no_op")

    def two_careers(self, how: str) -> None:
        """One class under two careers; one row ends (a drop or a deletion) and the student stays."""
        student = self.reserve()
        class_nbr = self.free_class(student.emplid)
        if class_nbr is None:
            return
        first, second = self.enrolled(student, class_nbr, "UGRD"), self.enrolled(student, class_nbr, "GRAD")
        self.put(first)
        self.put(second)
        self.now += 0.5
        if how == "drop":
            self.put(self.dropped(second))
            return
        before = self.rosters(class_nbr)
        self.school.delete(second.key)
        self.send(ENROLLMENTS, [rows.enrollment_deletion(second.key)], before)

    def cancel_class(self) -> None:
        """The class row says X; a second message drops its members with reason CANC."""
        school_class = self.chance.choice([each for each in self.school.classes.values() if each.status == "A"])
        before = self.rosters(school_class.class_nbr)
        school_class.status = "X"
        self.send(_CLASSES, [rows.class_row(school_class, "C")], before)
        members = [row for row in self.school.of_class(school_class.class_nbr) if row.status != "D"]
        ended = [self.school.put(self.dropped(row, "CANC")) for row in members]
        if ended:
            self.send(ENROLLMENTS, [rows.enrollment_row(row, "C") for row in ended], {}, delay=0.3)

    def change_instructor(self) -> None:
        """A class changes hands: the same row of CLASS_INSTR, another person in it."""
        school_class = self.chance.choice([each for each in self.school.classes.values() if each.status == "A"])
        current = {each.emplid for each in school_class.instructors}
        before = self.rosters(school_class.class_nbr)
        new = self.chance.choice([each for each in self.school.instructor_pool if each not in current])
        self.school.change_instructor(school_class.class_nbr, new)
        self.send(_CLASSES, [rows.class_row(school_class, "", {0: "C"})], before)

    def late_add(self) -> None:
        """Added, then dropped; the message of the add arrives long after the one of the drop."""
        student = self.reserve()
        if class_nbr := self.free_class(student.emplid):
            row = self.enrolled(student, class_nbr)
            self.put(row, delay=5.0, note="late")
            self.now += 0.5
            self.put(self.dropped(row))

    def late_drop(self) -> None:
        """Added, dropped, added again; the message of the drop arrives last."""
        student = self.reserve()
        if class_nbr := self.free_class(student.emplid):
            row = self.enrolled(student, class_nbr)
            self.put(row)
            self.now += 0.5
            self.put(self.dropped(row), delay=5.0, note="late")
            self.now += 0.5
            self.put(row)

    def send_again(self) -> None:
        """An acknowledgement was lost, or somebody pressed Resubmit: an old message once more, word for word."""
        old = self.chance.choice(self.sent)
        self.now += _TICK
        self.sent.append(replace(old, number=len(self.sent), post_at=self.now, note="duplicate"))


def plan_morning(seed: int = 7, students: int = 300, sections: int = 60, seconds: float = 40.0, first: int = 0) -> Morning:
    """The whole morning; `seconds` is about when the last message leaves, `first` as `build_school` has it.

    Raises `ValueError` for a school that is too small.
    """
    if students < 10 or sections < 4:
        raise ValueError("a morning with every hard case needs at least 10 students and 4 sections")
    chance = random.Random(seed)  # noqa: S311  (a plan that repeats is the point)
    school = build_school(chance, students, sections, first)
    planner = _Planner(chance, school, rows.business_date(date(2027, 1, 4)))
    late_people, late_sections = _late_objects(chance, school, seconds)
    for at, step in sorted(_agenda(planner, chance, seconds), key=lambda each: each[0]):
        planner.now = max(planner.now, at)
        step()
    return Morning(
        sorted(planner.sent, key=lambda message: (message.post_at, message.number)),
        school,
        planner.transitions,
        late_people,
        late_sections,
    )


def _late_objects(chance: random.Random, school: School, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    people = chance.sample([each.emplid for each in school.students], max(1, len(school.students) // 50))
    sections = chance.sample(sorted(school.classes), max(1, len(school.classes) // 30))
    return (
        {emplid: chance.uniform(0.2, 0.6) * seconds for emplid in people},
        {section_id(class_nbr): chance.uniform(0.15, 0.35) * seconds for class_nbr in sections},
    )


def _agenda(planner: _Planner, chance: random.Random, seconds: float) -> list[tuple[float, Callable[[], None]]]:
    """Every step with its time. Shares of the student body are chosen so that 300 students make about 2,000 changes."""
    school = planner.school
    many = len(school.students)
    opening = _PREPARATION * seconds
    agenda: list[tuple[float, Callable[[], None]]] = [(0.0, planner.announce_term)]
    class_nbrs = list(school.classes)
    for first in range(0, len(class_nbrs), 10):
        batch = class_nbrs[first : first + 10]
        agenda.append((opening * first / len(class_nbrs), partial(planner.announce_classes, batch)))
    for first in range(0, many, 25):
        people = school.students[first : first + 25]
        agenda.append((opening * first / many, partial(planner.announce_people, people)))
    for student in school.students:
        wanted = chance.choice([2, 3, 3, 4, 4, 4])
        agenda.append((chance.uniform(opening, 0.7 * seconds), partial(planner.register, student, wanted)))
    shares: list[tuple[Callable[[], None], float]] = [
        (planner.drop, 0.40),
        (planner.drop_at_once, 0.05),
        (planner.delete_row, 0.02),
        (planner.swap, 0.20),
        (planner.promote, 0.18),
        (planner.audit, 0.05),
        (planner.add_again, 0.12),
        (planner.touch, 0.25),
        (planner.change_career, 0.02),
        (planner.send_again, 0.15),
    ]
    for step, share in shares:
        agenda += [(chance.uniform(0.3, 0.97) * seconds, step) for _ in range(max(1, round(share * many)))]
    agenda += [(chance.uniform(0.3, 0.9) * seconds, planner.change_instructor) for _ in range(max(1, many // 60))]
    agenda += [(0.3 * seconds, partial(planner.two_careers, "drop")), (0.35 * seconds, partial(planner.two_careers, "delete"))]
    agenda += [(0.5 * seconds, planner.late_add), (0.55 * seconds, planner.late_drop), (0.8 * seconds, planner.cancel_class)]
    return agenda
