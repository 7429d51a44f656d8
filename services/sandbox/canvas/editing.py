"""What editing objects over REST has in common: SIS ids that only some may set, dates, and columns that are sticky."""

from __future__ import annotations

from datetime import datetime

from services.sandbox.canvas import errors
from services.sandbox.canvas.call import Call
from services.sandbox.canvas.parameters import Parameters, boolean, moment, text
from services.sandbox.canvas.state import Course, Section, Term


def override(call: Call) -> bool:
    """``override_sis_stickiness``: true unless the client says no, then sticky columns keep what they have."""
    asked = call.parameters.get("override_sis_stickiness")
    return asked is None or boolean(asked)


def given_dates(wanted: Parameters) -> dict[str, datetime | None]:
    """Those of ``start_at`` and ``end_at`` that were sent; a blank one clears."""
    return {name: moment(wanted[name]) for name in ("start_at", "end_at") if name in wanted}


def check_order(start: datetime | None, end: datetime | None, attribute: str, message: str) -> None:
    """Raise the validation's 400 unless the end comes after the start."""
    if start and end and end < start:
        raise errors.invalid(attribute, message)


def set_sis_id(call: Call, item: Course | Section | Term, wanted: Parameters, name: str) -> None:
    """Change the SIS id if one was sent; a blank one removes it. The caller has asked for the right."""
    if name not in wanted:
        return
    sis_id = text(wanted, name)
    index: dict[str, Course | Section | Term] = {
        "sis_course_id": call.world.courses_by_sis,
        "sis_section_id": call.world.sections_by_sis,
        "sis_term_id": call.world.terms_by_sis,
    }[name]  # type: ignore[assignment]  # one of three dictionaries of three kinds
    if sis_id and index.get(sis_id) not in (None, item):
        raise errors.sis_id_taken(sis_id)
    call.world.set_sis_id(item, sis_id)
