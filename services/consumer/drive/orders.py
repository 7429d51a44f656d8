"""What an open intent asks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from services.consumer.nouns import AppliedState, Origin, Seat, SeatState
from services.consumer.targets.port import Observation


@dataclass(frozen=True, slots=True)
class Order:
    """An open intent: what to do for one seat, as the ledger knew it when the intent was written."""

    intent: str
    key: str
    """The seat's key within its target."""
    seat: Seat
    desired: SeatState
    applied: AppliedState
    origin: Origin | None
    lms_enrollment: str | None
    lms_course: str | None
    call: Literal["read", "write"]
    """`read`: nothing seems to be left to do, so nothing may be changed under this intent."""
    must_read: bool
    """Not observed yet, asked to verify, or suspect and due: what the ledger believes is not enough."""
    cleared: bool
    """The guard has let the removal through that this decision may be; without it nobody's access may be taken away."""
    attempts: int
    failed_as: str | None
    """The outcome class of the attempt before, if it failed."""
    priority: int
    opened_at: datetime
    """By the database's clock; a read under this intent starts later."""
    send_by: float
    """Monotonic: no change may be sent later."""

    @property
    def believed(self) -> Observation:
        """The seat as the ledger knows it; meaningful unless it must be read."""
        state = "absent" if self.applied == "unknown" else self.applied
        return Observation(state, self.lms_enrollment, self.lms_course)
