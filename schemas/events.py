"""The events: each is the full state of one entity after a change, as the SIS sees it.

A reader keeps the newest `version` per entity and needs no other order. Writers validate closed (`codec.compose`),
readers ignore fields they do not know; that is how an additive change stays compatible. Personal data (a display name) is
allowed in `PersonEvent` only. The docstring of a field is its description in the generated JSON Schema.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from schemas import keys
from schemas.keys import EntityKey, RoleFamily

_WITHOUT_NUL = r"^[^\x00]*$"
# PostgreSQL stores no NUL in text or jsonb: a record with one would stop its whole partition instead of itself.

Text = Annotated[str, Field(pattern=_WITHOUT_NUL)]
"""Any text but NUL characters."""

Identifier = Annotated[str, Field(min_length=1, max_length=255, pattern=_WITHOUT_NUL)]
"""An id of the SIS: opaque text, compared exactly."""

BIGGEST = 2**63 - 1
"""Of every number that a database column holds."""

EnrollmentStatus = Literal["enrolled", "waitlisted", "dropped", "withdrawn", "cancelled", "completed"]
"""`dropped` covers rows that the SIS deleted; `cancelled` means that the class was; `withdrawn` left with a transcript mark."""

STRONGEST_FIRST: tuple[EnrollmentStatus, ...] = ("enrolled", "completed", "withdrawn", "waitlisted", "cancelled", "dropped")
"""Where several rows or sections say something about one person, the strongest counts: live beats withdrawn beats the rest."""

EnrollmentRole = Literal["student", "auditor", "instructor_primary", "instructor_secondary", "assistant", "other"]
"""`other`: a local code of the SIS; the raw code is in `codes` and the registrar's policy decides what it means."""


class Model(BaseModel):
    """Common rules: frozen, and unknown fields ignored on reading."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class OrderToken(Model):
    """Where a source row stands in its channel, and between which instants the SIS showed it so."""

    channel: Identifier
    """The way it came, for example ``ib:PSFT_CS``; positions compare only within one channel and incarnation."""
    incarnation: Text = "1"
    """Changes when the source lost its history (restored SIS, new outbox table)."""
    position: int | None = Field(default=None, ge=-BIGGEST - 1, le=BIGGEST)
    """Increases within the channel; absent when the channel has no order of its own."""
    as_of_from: AwareDatetime | None = None
    """Start of the interval in which the source showed the row so; absent when it does not say."""
    as_of_to: AwareDatetime | None = None
    """End of that interval."""
    snapshot: bool = False
    """True for a row of a full extract; a delta of the same instant beats it."""


class SourceRow(Model):
    """One row of the SIS as the mirror holds it: natural key, allow-listed columns, order.

    Never a name or an address, except in a person's rows.
    """

    record: Identifier
    """The SIS record, for example ``STDNT_ENRL``."""
    key: dict[Text, Text]
    """Natural key columns."""
    values: dict[Text, Text]
    """Allow-listed other columns; empty for a deletion that carried only keys."""
    deleted: bool = False
    """The SIS deleted the row."""
    order: OrderToken
    """Where the row stands among its siblings."""


class Event(Model):
    """What every event carries."""

    tenant: Identifier
    """One SIS id space (all EMPLIDs of one database)."""
    version: int = Field(gt=0, le=BIGGEST)
    """Issued by the mirror, microseconds of its clock or more; strictly increasing per entity, the only order that counts."""
    content_hash: str = Field(pattern=r"^[0-9a-f]{32}$")
    """Of the entity's state: all but tenant, version, times and source rows. The same version with another hash is an alarm."""
    occurred_at: AwareDatetime | None = None
    """When the SIS says that it happened; informational."""
    accepted_at: AwareDatetime
    """When the publisher took the change in; the clock that freshness is measured from."""
    source_rows: list[SourceRow] = Field(default_factory=list)
    """Every source row folded into this state, so that a mirror which lost its history can be rebuilt from the log."""

    @property
    def entity_key(self) -> EntityKey:
        """What the entity is called in a database."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _key_fits_an_index(self) -> Self:
        # A PostgreSQL index row holds about 2,700 bytes; ids that are too long together would fail there, not here.
        if len(self.entity_key.key) > keys.MAX_KEY_LENGTH:
            raise ValueError(f"the ids together are longer than {keys.MAX_KEY_LENGTH} characters when encoded")
        return self


class EnrollmentEvent(Event):
    """One person in one section, in one role family."""

    institution: Identifier
    term: Identifier
    section: Identifier
    person: Identifier
    role_family: RoleFamily
    status: EnrollmentStatus
    role: EnrollmentRole
    effective_date: date | None = None
    """The change's own business date (drop date for a drop); rules about census day use this, never today."""
    codes: dict[Text, Text] = Field(default_factory=dict)
    """The SIS's raw status, reason and role codes, kept verbatim."""

    @property
    def entity_key(self) -> EntityKey:
        return keys.enrollment_key(self.tenant, self.institution, self.term, self.section, self.person, self.role_family)


class PersonEvent(Event):
    """One person: whether the SIS has them, and the name to display. The only event with personal data."""

    person: Identifier
    status: Literal["active", "removed"]
    display_name: Text | None = Field(default=None, max_length=255)
    """As the SIS would show it to others; absent when it has none or the person was removed."""
    login: Text | None = Field(default=None, max_length=255)
    """What the person signs in with. Personal data: only where the publisher's operator lets it through."""
    email: Text | None = Field(default=None, max_length=255)
    """Where the person is written to; as for the login."""
    merged_into: Identifier | None = None
    """Of a removed one: the id under which the SIS keeps this person from now on."""

    @property
    def entity_key(self) -> EntityKey:
        return keys.person_key(self.tenant, self.person)


class SectionEvent(Event):
    """One class section."""

    institution: Identifier
    term: Identifier
    section: Identifier
    status: Literal["active", "tentative", "closed", "cancelled", "removed"]
    """`closed`: no further enrolment; its members stay. `removed`: the SIS deleted the row."""
    course: Identifier | None = None
    """The course it belongs to (see `keys.course_key`); None while the SIS has not said."""
    session: Text | None = None
    component: Text | None = None
    """Lecture, laboratory, discussion, ... as the SIS codes it."""
    effective_date: date | None = None
    codes: dict[Text, Text] = Field(default_factory=dict)

    @property
    def entity_key(self) -> EntityKey:
        return keys.section_key(self.tenant, self.institution, self.term, self.section)


class CourseEvent(Event):
    """One course as offered."""

    institution: Identifier
    course: Identifier
    status: Literal["active", "removed"]
    subject: Text | None = None
    catalog_number: Text | None = None

    @property
    def entity_key(self) -> EntityKey:
        return keys.course_key(self.tenant, self.institution, self.course)


class TermEvent(Event):
    """One term of one institution."""

    institution: Identifier
    term: Identifier
    status: Literal["active", "removed"]
    start_date: date | None = None
    end_date: date | None = None

    @property
    def entity_key(self) -> EntityKey:
        return keys.term_key(self.tenant, self.institution, self.term)


AnyEvent = EnrollmentEvent | PersonEvent | SectionEvent | CourseEvent | TermEvent
EVENT_MODELS: dict[keys.EntityKind, type[AnyEvent]] = {
    "enrollment": EnrollmentEvent,
    "person": PersonEvent,
    "section": SectionEvent,
    "course": CourseEvent,
    "term": TermEvent,
}
