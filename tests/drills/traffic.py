"""One registration morning of a school of its own, sent while something is being broken, and what became of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg

from services.sandbox.canvas.client import CanvasControl
from services.sandbox.demo import world as school_world
from services.sandbox.demo.verdict import Difference, Placement, Write, compare, unexplained
from services.sandbox.sis.client import Delivery, Poster, Progress
from services.sandbox.sis.messages import Message, enrollment_row
from services.sandbox.sis.morning import Morning
from services.sandbox.sis.truth import roster, section_id


@dataclass
class Traffic:
    """Plays `morning` through `posters` (message by message in turn) in a thread of its own."""

    morning: Morning
    posters: Sequence[Poster]
    canvas: CanvasControl
    started: float = 0.0
    """Wall clock."""
    seen_before: int = 0
    """Entries of Canvas's write log before it."""
    allowed_repeats: int = 0
    """Calls that changed nothing which the fault may cause (a call that landed although its driver was given up)."""
    progresses: list[Progress] = field(default_factory=list)
    error: BaseException | None = None
    _thread: threading.Thread | None = None

    # -- while it runs -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the school known to Canvas, and begin."""
        school_world.seed(self.canvas, self.morning)
        self.seen_before = len(self.canvas.writes())
        self.started = time.time()
        self.progresses = [Progress(0) for _ in self.posters]
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._play())
        except BaseException as error:
            self.error = error

    async def _play(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(school_world.reveal_late_objects(self.canvas, self.morning, self.started))
            for number, poster in enumerate(self.posters):
                part = self.morning.messages[number :: len(self.posters)]
                group.create_task(self._post(number, poster, part))

    async def _post(self, number: int, poster: Poster, messages: Sequence[Message]) -> None:
        def note(progress: Progress) -> None:
            self.progresses[number] = progress

        await poster.play(messages, note, started=datetime.fromtimestamp(self.started, UTC).astimezone())

    @property
    def share(self) -> float:
        """Of all messages, accepted so far."""
        return sum(each.accepted for each in self.progresses) / len(self.morning.messages)

    def reach(self, share: float, seconds: float = 120) -> None:
        """Block until so much was accepted."""
        deadline = time.monotonic() + seconds
        while self.share < share:
            assert time.monotonic() < deadline, f"only {self.share:.0%} accepted after {seconds:g} s"
            self._check()
            time.sleep(0.05)

    def _check(self) -> None:
        if self.error is not None:
            raise self.error

    @property
    def sent(self) -> bool:
        """Whether everything was answered."""
        return self._thread is not None and not self._thread.is_alive()

    def await_sent(self, seconds: float) -> None:
        """Block until everything was answered."""
        assert self._thread is not None
        self._thread.join(seconds)
        self._check()
        assert self.sent, f"I1: {self.share:.0%} of the messages were accepted {seconds:g} s after healing"

    def say_everything_again(self) -> None:
        """The SIS sends each enrollment row as it is now, once everything was answered.

        As an operator has it after the mirror lost something: what changed a row's time and nothing else is not in the log.
        """
        school = self.morning.school
        rows = [enrollment_row(row, "C") for class_nbr in school.classes for row in school.of_class(class_nbr)]
        answered = asyncio.run(self.posters[0].play([Message(0, "ZZ_ENRL_SYNC", tuple(rows), 0.0, 0.0)]))
        assert all(delivery.accepted for delivery in answered)

    # -- afterwards --------------------------------------------------------------------------------------------------------

    @property
    def deliveries(self) -> list[Delivery]:
        """What became of each message."""
        return [delivery for progress in self.progresses for delivery in progress.deliveries]

    def attempts(self) -> list[dict[str, Any]]:
        """Canvas's write log about this school."""
        ours = self._sections()
        return [each for each in self.canvas.writes(self.seen_before) if each["section"] in ours]

    def writes(self) -> list[Write]:
        """What changed in Canvas."""
        return school_world.applied(self.attempts())

    def differences(self) -> list[Difference]:
        """I2: Canvas against the SIS, person by person."""
        ours = self._sections()
        rows = [Placement(*each) for each in school_world.placements(self.canvas) if each.seat.section in ours]
        return compare(roster(self.morning.school), rows)

    def _sections(self) -> set[str]:
        return {section_id(class_nbr) for class_nbr in self.morning.school.classes}

    def await_converged(self, settled: Callable[[], bool], seconds: float) -> float:
        """Seconds until Canvas shows what the SIS holds and nothing is left to do."""
        begun = time.monotonic()
        self.await_sent(seconds)
        while True:
            if _tolerant(settled) and not self.differences():
                return time.monotonic() - begun
            if time.monotonic() - begun > seconds:
                kinds = Counter(f"{each.kind} ({each.state})" for each in self.differences())
                raise AssertionError(f"I2: not settled {seconds:g} s after healing; differences: {dict(kinds)}")
            time.sleep(0.3)

    def broken(self) -> list[str]:
        """I1, I3, I4 and I5, by the SIS's books and Canvas's log."""
        found = []
        if refused := [each.status for each in self.deliveries if not each.accepted]:
            found.append(f"I1: {len(refused)} messages got an answer that the source does not repeat: {Counter(refused)}")
        if len(self.deliveries) != len(self.morning.messages):
            found.append(f"I1: {len(self.deliveries)} of {len(self.morning.messages)} messages left")
        mixed = self._of_several_careers()
        strange = [each for each in unexplained(self.morning, self.deliveries, self.writes()) if each.seat[:2] not in mixed]
        if strange:
            found.append(f"I3, I4: {len(strange)} writes that the SIS never asked for in this order: {strange[:3]}")
        if (repeats := len(self.repeats())) > self.allowed_repeats:
            found.append(f"I5: {repeats} calls changed nothing, {self.allowed_repeats} may")
        return found

    def _of_several_careers(self) -> set[tuple[str, str]]:
        """Section and person of seats that several SIS rows give.

        A message that a fault delays makes such a seat take a way that the SIS never saw, rightly: of two rows the one that has
        arrived is dropped, so the seat goes; then the other arrives. Their end is judged, their way is not.
        """
        careers: dict[tuple[str, str], set[str]] = defaultdict(set)
        for fields in (row.fields for message in self.morning.messages for row in message.rows if row.record == "STDNT_ENRL"):
            careers[section_id(fields["CLASS_NBR"]), fields["EMPLID"]].add(fields["ACAD_CAREER"])
        return {place for place, found in careers.items() if len(found) > 1}

    def repeats(self) -> list[dict[str, Any]]:
        """Calls that Canvas applied and that changed nothing: somebody repeated what was done."""
        return [each for each in self.attempts() if each["applied"] and not each["changed"]]

    def numbers(self) -> dict[str, int]:
        """For the report."""
        attempts = self.attempts()
        return {
            "changes": sum(each.message.changes for each in self.deliveries if each.accepted),
            "posts": sum(each.attempts for each in self.deliveries),
            "posts repeated": sum(each.attempts - 1 for each in self.deliveries),
            "calls": len(attempts),
            "writes": sum(each["changed"] for each in attempts),
            "repeated calls": len(self.repeats()),
        }


def _tolerant(settled: Callable[[], bool]) -> bool:
    """A database that is not back yet has settled nothing."""
    try:
        return settled()
    except (psycopg.OperationalError, httpx.TransportError):
        return False
