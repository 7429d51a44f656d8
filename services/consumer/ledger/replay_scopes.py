"""What a replay can be asked for: a range of the log, or what the ledger holds of something."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from schemas import keys
from schemas.keys import MAX_KEY_LENGTH, EntityKey, EntityKind

_LARGEST = 2**63 - 1
_Id = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]
_Topic = Annotated[str, Field(examples=["enrollstream.enrollment.v1"])]
_Tenant = Annotated[_Id, Field(examples=["main"])]
_Institution = Annotated[_Id, Field(examples=["PSUNV"])]
_Term = Annotated[_Id, Field(examples=["1259"])]
_Key = Annotated[str, Field(min_length=1, max_length=MAX_KEY_LENGTH, pattern=r"^[^\x00]+$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class Offsets(_Model):
    """Offsets `from` to `to` of one partition, both included. `to` may lie past the end of the log: it is cut there."""

    topic: _Topic
    partition: int = Field(ge=0, lt=2**31, examples=[2])
    first: int = Field(alias="from", ge=0, le=_LARGEST, examples=[1200])
    last: int = Field(alias="to", ge=0, le=_LARGEST, examples=[1299])

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first > self.last:
            raise ValueError("from must not be above to")
        return self


class Times(_Model):
    """The records of a topic from `since` until before `until`, by Kafka's timestamps, in all partitions."""

    topic: _Topic
    since: AwareDatetime = Field(examples=["2027-01-11T08:00:00Z"])
    until: AwareDatetime = Field(examples=["2027-01-11T09:00:00Z"])

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since >= self.until:
            raise ValueError("since must be before until")
        return self


class _OfTenant(_Model):
    tenant: _Tenant | None = None
    """The consumer's own when absent."""


class Key(_OfTenant):
    """One entity, by its kind and encoded key (see `schemas.keys`)."""

    kind: EntityKind
    key: _Key = Field(examples=["PSUNV/1259/1001/0009001/learner"])


class Person(_OfTenant):
    """Everything of one person, by the id of the SIS."""

    person: _Id = Field(examples=["0009001"])


class Section(_OfTenant):
    """Everybody in one section."""

    institution: _Institution
    term: _Term
    section: _Id = Field(examples=["1001"])


class Term(_OfTenant):
    """Everybody in one term."""

    institution: _Institution
    term: _Term


class DeadLetters(_Model):
    """The seats that the LMS refuses for one cause; see `dead_letters`."""

    target: _Id | None = Field(default=None, examples=["canvas"])
    """The consumer's own when absent."""
    dead_class: _Id = Field(alias="class", examples=["refused:validation"])


class Scope(_Model):
    """Exactly one of these."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"dead_letters": {"class": "refused:validation"}}]})

    offsets: Offsets | None = None
    times: Times | None = None
    key: Key | None = None
    person: Person | None = None
    section: Section | None = None
    term: Term | None = None
    dead_letters: DeadLetters | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1 or self.asked is None:
            raise ValueError(f"name exactly one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def name(self) -> str:
        """Which of them it is."""
        return next(iter(self.model_fields_set))

    @property
    def asked(self) -> _Model | None:
        """The one that is meant."""
        meant: _Model | None = getattr(self, self.name)
        return meant

    @property
    def in_the_log(self) -> bool:
        """Whether records are read again; otherwise seats of the ledger are opened."""
        return self.offsets is not None or self.times is not None

    @property
    def entity(self) -> EntityKey | None:
        """What the seats depend on; None for a range of the log and for dead letters. The tenant must be named."""
        match self.asked:
            case Key(tenant=str(tenant), kind=kind, key=key):
                return EntityKey(tenant, kind, key)
            case Person(tenant=str(tenant), person=person):
                return keys.person_key(tenant, person)
            case Section(tenant=str(tenant), institution=institution, term=term, section=section):
                return keys.section_key(tenant, institution, term, section)
            case Term(tenant=str(tenant), institution=institution, term=term):
                return keys.term_key(tenant, institution, term)
        return None

    def at_home(self, tenant: str, target: str) -> Scope:
        """The same with the consumer's own tenant or target where none is named."""
        match self.asked:
            case _OfTenant(tenant=None) as asked:
                return self.model_copy(update={self.name: asked.model_copy(update={"tenant": tenant})})
            case DeadLetters(target=None) as asked:
                return self.model_copy(update={self.name: asked.model_copy(update={"target": target})})
        return self

    def told(self) -> dict[str, Any]:
        """As JSON, for the table and for answers."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def of_json(text: bytes) -> Scope:
    """The scope that `told` gave."""
    return Scope.model_validate_json(text)
