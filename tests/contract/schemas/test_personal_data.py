"""Personal data travels in the person event only: every field of every model has to be on this list to exist."""

from __future__ import annotations

from schemas.events import EVENT_MODELS, Event, OrderToken, SourceRow
from schemas.markers import Marker

_IN_EVERY_EVENT = {"tenant", "version", "content_hash", "occurred_at", "accepted_at", "source_rows"}

WITHOUT_PERSONAL_DATA = {
    "OrderToken": {"channel", "incarnation", "position", "as_of_from", "as_of_to", "snapshot"},
    "SourceRow": {"record", "key", "values", "deleted", "order"},
    "Event": _IN_EVERY_EVENT,
    "EnrollmentEvent": _IN_EVERY_EVENT
    | {"institution", "term", "section", "person", "role_family", "status", "role", "effective_date", "codes"},
    "SectionEvent": _IN_EVERY_EVENT
    | {"institution", "term", "section", "status", "course", "session", "component", "effective_date", "codes"},
    "CourseEvent": _IN_EVERY_EVENT | {"institution", "course", "status", "subject", "catalog_number"},
    "TermEvent": _IN_EVERY_EVENT | {"institution", "term", "status", "start_date", "end_date"},
    "Marker": {"system_id", "timeline", "floor", "written_at"},
}
"""Ids of people (`person`) are pseudonyms and allowed; names, addresses, birth dates, grades are not."""

PERSONAL = {"PersonEvent": _IN_EVERY_EVENT | {"person", "status", "display_name", "login", "email", "merged_into"}}


def test_no_model_has_a_field_that_was_not_argued_for() -> None:
    models = [OrderToken, SourceRow, Event, Marker, *EVENT_MODELS.values()]
    assert {model.__name__: set(model.model_fields) for model in models} == WITHOUT_PERSONAL_DATA | PERSONAL


def test_open_maps_are_the_known_ones() -> None:
    """Maps take any key, so each is a place where a translator could let a name through; their writers allow-list columns."""
    maps = {
        f"{model.__name__}.{name}"
        for model in [SourceRow, OrderToken, *EVENT_MODELS.values()]
        for name, field in model.model_fields.items()
        if "dict" in str(field.annotation)
    }
    assert maps == {"SourceRow.key", "SourceRow.values", "EnrollmentEvent.codes", "SectionEvent.codes"}
