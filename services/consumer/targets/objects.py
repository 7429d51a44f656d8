"""What a target may offer besides seats: reading and writing the objects that seats need, one at a time.

A target that cannot do it has no such part, and one that can says which kinds it knows. Every answer is one of the classes of
`port`, or one of those below; nothing is raised for what an LMS does. Nothing is ever deleted, and nothing that was deleted is
brought back: what somebody has removed is refused, for a person to look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from services.consumer.nouns import ObjectKind
from services.consumer.targets.port import NO_USAGE, Failure, Usage

Attribute = Literal["name", "code", "starts", "ends", "login", "email", "state"]
"""Of a term: name, starts, ends (instants in UTC, ``2026-08-24T04:00:00Z``). Of a course: name, code. Of a section: name. Of a
person: name, email, login, state (``active`` or ``suspended``, of the login)."""


@dataclass(frozen=True, slots=True)
class WantedObject:
    """An object as it should be. `repr` shows no values: they may be names of people."""

    kind: ObjectKind
    sis_id: str
    values: Mapping[Attribute, str] = field(repr=False)
    inside: str | None = None
    """SIS id of what it is made in: a course's term (None: the LMS's default), a section's course."""


@dataclass(frozen=True, slots=True)
class ShownObject:
    """The object as the LMS shows it, identity checked: what a read found, or the body of an answer to a change."""

    label: ClassVar = "done"
    lms_id: str
    values: Mapping[Attribute, str] = field(repr=False)
    """Of the attributes that were wanted, those that it shows."""
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class NoObject:
    """The LMS has no such object, or not any more."""

    label: ClassVar = "done"
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class NoParent:
    """What the object is to be made in is missing. Nothing was changed. Reaction: make that first; without the right to, wait."""

    label: ClassVar = "no_parent"
    kind: Literal["term", "course"]
    usage: Usage = field(default=NO_USAGE, compare=False)


ObjectOutcome = ShownObject | NoParent | Failure
"""Of a change. `Unknown` and all other failures mean what they mean for seats."""


class ObjectTarget(Protocol):
    """Objects of one LMS account. Each operation ends within the target's call timeout, cancellation included.

    A cancelled change may have been made; the caller has to treat it as `Unknown`.
    """

    @property
    def kinds(self) -> frozenset[ObjectKind]:
        """What it can read and write."""
        ...

    async def find(self, wanted: WantedObject) -> ShownObject | NoObject | Failure:
        """The object with this SIS id as it is now; never `Unknown`."""
        ...

    async def make(self, wanted: WantedObject) -> ObjectOutcome:
        """Make it, with one changing call. Only of what `find` did not find."""
        ...

    async def change(
        self, wanted: WantedObject, seen: ShownObject, attributes: frozenset[Attribute], *, gently: bool
    ) -> ObjectOutcome:
        """Bring some of these attributes to what is wanted, with one changing call; the answer shows how far that went, so call
        again for the others. `gently`: values that a person has set by hand are left as they are."""
        ...

    async def rekey(self, wanted: WantedObject, seen: ShownObject, sis_id: str) -> ObjectOutcome:
        """Give the login of this person another SIS id, or none at all when it is empty, with one changing call. Nobody is found
        under the old one any more; accounts and enrollments stay as they are."""
        ...
