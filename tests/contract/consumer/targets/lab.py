"""What a test may do to an LMS beside the target, and what it may expect of that LMS at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from services.consumer.nouns import MissingKind, Seat, SeatState
from services.consumer.targets.port import ObservedState, Target

Mishap = Literal["lost", "done_but_lost", "hangs", "ignored", "page", "done_but_page", "fails"]
"""What befalls a change. `lost`: the connection breaks before anything is done; `hangs`: neither an effect nor an answer;
`ignored`: answered as if all were well, and nothing is done; `page`: a page of HTML with status 200; `fails`: the LMS says that
it broke. `done_but_`: the same after the change was made."""


@dataclass(frozen=True, slots=True)
class Features:
    """What an LMS can tell apart. A target promises what is declared here, and has to refuse what is not."""

    states: frozenset[SeatState]
    """What a seat can be made to be."""
    removed: Literal["deleted", "absent"]
    """What a removed seat reads as: `deleted` where its row stays, `absent` where nothing is left of it."""

    def reads_as(self, wanted: SeatState) -> ObservedState:
        """The state that a seat is in when it was brought to `wanted`."""
        return self.removed if wanted == "deleted" else wanted


class Lab(Protocol):
    """An LMS that a test may arrange and look into, beside the target."""

    features: Features
    call_timeout_seconds: float

    @property
    def target(self) -> Target:
        """Connected to the LMS."""
        ...

    def seat(self, person: str = "p1", section: str = "S-1") -> Seat:
        """A seat whose user and section exist."""
        ...

    def seat_in_another_role(self, person: str = "p1", section: str = "S-1") -> Seat:
        """Beside `seat`, of the same person in the same section."""
        ...

    def seat_without(self, *missing: MissingKind) -> Seat:
        """A seat whose user or section does not exist."""
        ...

    def put(self, seat: Seat) -> None:
        """Somebody else gives the seat, which becomes active."""
        ...

    def state(self, seat: Seat) -> ObservedState:
        """As the LMS has it."""
        ...

    def rows(self, seat: Seat) -> int:
        """How many rows the LMS has for the seat's user and section."""
        ...

    def changes(self) -> int:
        """How many changes the LMS has made for the target."""
        ...

    def befall(self, mishap: Mishap, *, changes: int = 1) -> None:
        """It befalls so many of the next changes, whoever makes them."""
        ...

    def forbid_changes(self) -> None:
        """The account may read and change nothing any more."""
        ...

    def hang(self) -> None:
        """No call gets an answer any more."""
        ...

    def violations(self) -> list[str]:
        """What the target did that must never be done to this LMS, as the LMS noted it."""
        ...
