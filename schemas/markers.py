"""Markers: how a publisher knows that its mirror is the one that wrote the log.

The marker topic holds one record per mirror (key ``mirror``). A mirror whose database does not match the newest marker has been
restored, promoted or replaced: it must issue versions above `floor` and take its history back from the log.
"""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from schemas.events import BIGGEST, Identifier, Model

MARKER_KEY = b"mirror"


class Marker(Model):
    """The identity of the mirror's database at the time of writing."""

    system_id: Identifier
    """PostgreSQL's system identifier (``pg_control_system``)."""
    timeline: int = Field(gt=0, lt=2**31)
    """Increases with each promotion of a standby."""
    floor: int = Field(ge=0, le=BIGGEST)
    """Every version issued afterwards is above this."""
    written_at: AwareDatetime
