"""Canvas's JSON of an enrollment, as far as we rely on it (``lib/api/v1/user.rb``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from services.consumer.nouns import Seat
from services.consumer.targets.port import Observation, ObservedState, RosterRow

_STATES: Mapping[str, ObservedState] = {
    "active": "active",
    "inactive": "inactive",
    "completed": "completed",
    "deleted": "deleted",
}
STORED_STATES = ("active", "invited", "creation_pending", "inactive", "completed", "rejected", "deleted")
"""Everything to ask for: the default list leaves out completed, rejected and deleted rows."""
_MADE_BY_CANVAS = ("ObserverEnrollment", "StudentViewEnrollment")


class Row(NamedTuple):
    """One enrollment. Ids are text, whatever JSON type Canvas chose."""

    id: str
    user_id: str
    course_id: str
    section_id: str
    type: str
    role: str
    state: str
    associated_user_id: str | None
    sis_user_id: str | None
    """Of the login that Canvas prefers, None without the right to read SIS data."""
    sis_section_id: str | None
    sis_owned: bool
    temporary: bool
    """Made by Canvas's temporary-enrollment feature; never ours."""

    @classmethod
    def parse(cls, value: Any) -> Row | None:
        """None when a field that every enrollment has is missing."""
        try:
            return cls(
                id=str(value["id"]),
                user_id=str(value["user_id"]),
                course_id=str(value["course_id"]),
                section_id=str(value["course_section_id"]),
                type=str(value["type"]),
                role=str(value["role"]),
                state=str(value["enrollment_state"]),
                associated_user_id=_text(value.get("associated_user_id")),
                sis_user_id=_text(value.get("sis_user_id")),
                sis_section_id=_text(value.get("sis_section_id")),
                sis_owned=value.get("sis_import_id") is not None,
                temporary=value.get("temporary_enrollment_source_user_id") is not None,
            )
        except (KeyError, TypeError, AttributeError):
            return None

    def plays(self, seat: Seat) -> bool:
        """Whether the row has the seat's role. Who the observed user is has to be asked separately."""
        observes = self.associated_user_id is not None
        return self.type == seat.base_role and self.role == seat.role and observes == bool(seat.associated_user)

    def observation(self) -> Observation:
        """The row in our words; invitations and rejections are states that we never ask for."""
        return Observation(_STATES.get(self.state, "other"), self.id, self.course_id, self.sis_owned)

    @property
    def made_by_people(self) -> bool:
        """Or by tools for them. Observers come and go with the students that they observe; the Test Student is a teacher's."""
        return self.type not in _MADE_BY_CANVAS and not self.temporary

    def in_roster(self) -> RosterRow:
        """The row as one of its section's roster."""
        return RosterRow(self.sis_user_id, self.role, self.type, self.observation())


def parse_rows(value: Any) -> list[Row] | None:
    """A page of enrollments; None when it is none."""
    rows = [Row.parse(one) for one in value] if isinstance(value, list) else [None]
    return None if None in rows else [row for row in rows if row is not None]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
