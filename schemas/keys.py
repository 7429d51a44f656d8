"""Identities: what an entity is called in the database, and which key its record carries in Kafka.

Ids are text, always: an EMPLID keeps its leading zeros. A key's parts are percent-encoded and joined with ``/``, so that any
character of a student system survives and the text sorts and splits without surprises.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

EntityKind = Literal["enrollment", "person", "section", "course", "term"]
RoleFamily = Literal["learner", "staff"]

_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*")
"""What `quote` leaves as it is."""

MAX_KEY_LENGTH = 1024
"""Of an encoded key. Real ones have 10 to 60 characters."""


class EntityKey(NamedTuple):
    """Names one thing the SIS knows, within one tenant (one SIS id space)."""

    tenant: str
    kind: EntityKind
    key: str
    """The encoded parts, see the constructors below."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The decoded parts, in the order of the constructor that made the key."""
        return split(self.key)

    @property
    def section(self) -> str:
        """Of an enrollment: the key text of its section, which its own begins with."""
        return self.key.rsplit("/", 2)[0]


def enrollment_key(tenant: str, institution: str, term: str, section: str, person: str, role_family: RoleFamily) -> EntityKey:
    """One person in one section, once as a learner and once as staff."""
    return EntityKey(tenant, "enrollment", join(institution, term, section, person, role_family))


def section_key(tenant: str, institution: str, term: str, section: str) -> EntityKey:
    """One class section of one term; section numbers repeat across terms and institutions."""
    return EntityKey(tenant, "section", join(institution, term, section))


def person_key(tenant: str, person: str) -> EntityKey:
    """One person of the tenant's id space."""
    return EntityKey(tenant, "person", join(person))


def course_key(tenant: str, institution: str, course: str) -> EntityKey:
    """One course as offered: what its sections have in common. The term is part of `course` where the SIS needs it."""
    return EntityKey(tenant, "course", join(institution, course))


def term_key(tenant: str, institution: str, term: str) -> EntityKey:
    """One term of one institution; the code is opaque."""
    return EntityKey(tenant, "term", join(institution, term))


def join(*parts: str) -> str:
    """Encode and join parts into one key text."""
    # Almost every id is plain; asking once for all parts costs a tenth of quoting them.
    plain = _PLAIN.fullmatch("".join(parts))
    return "/".join(parts if plain else (quote(part, safe="") for part in parts))


def split(key: str) -> tuple[str, ...]:
    """The inverse of `join`."""
    parts = key.split("/")
    return tuple(map(unquote, parts)) if "%" in key else tuple(parts)


def record_key(key: EntityKey) -> bytes:
    """The Kafka record key: (tenant, person) for enrollments and people, (tenant, object) for the rest.

    All enrollments of one person share a partition, so that a swap's two halves usually arrive together.
    """
    owner = (key.parts[3],) if key.kind == "enrollment" else key.parts
    return join(key.tenant, *owner).encode()
