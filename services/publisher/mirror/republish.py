"""Emit current state again: each entity of a scope gets a new version with the hash it has."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.keys import EntityKey
from services.kit.postgres import Connection

CHUNK = 100
"""Entities per transaction: each is locked for as long as the transaction takes."""


class Scope(BaseModel):
    """Which entities; the given fields all have to match. Exactly everything needs ``all``."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_min_length=1, str_max_length=255)

    tenant: str | None = Field(default=None, description="one SIS id space; the publisher's own when absent")
    institution: str | None = None
    term: str | None = None
    section: str | None = Field(default=None, description="needs its term: section numbers repeat")
    person: str | None = Field(default=None, description="the person and everything they are enrolled in")
    all: bool = Field(default=False, description="everything of the tenant")

    @model_validator(mode="after")
    def _is_meant(self) -> Self:
        narrow = (self.institution, self.term, self.section, self.person)
        if self.all and any(narrow):
            raise ValueError("`all` stands alone or with a tenant")
        if not self.all and not any(narrow):
            raise ValueError("name a term, section, person or institution, or say `all`")
        if self.section and not self.term:
            raise ValueError("a section needs its term")
        return self


class Selection:
    """Pages through the entities of a scope in key order."""

    def __init__(self, scope: Scope, tenant: str) -> None:
        named = {"institution": scope.institution, "term": scope.term, "section": scope.section, "person": scope.person}
        self._values = {"tenant": scope.tenant or tenant} | {name: value for name, value in named.items() if value is not None}
        self._where = " and ".join(["version > 0", *(f"{name} = %({name})s" for name in self._values)])

    def count(self, connection: Connection) -> int:
        """How many there are."""
        row = connection.execute(f"select count(*) from entity where {self._where}", self._values).fetchone()  # noqa: S608
        return int(row[0]) if row else 0

    def page(self, connection: Connection, after: EntityKey | None) -> list[EntityKey]:
        """The next entities."""
        place = {"after_kind": after.kind if after else "", "after_key": after.key if after else "", "limit": CHUNK}
        found = connection.execute(
            f"""select tenant, kind, key from entity
                 where {self._where} and (kind, key) > (%(after_kind)s, %(after_key)s)
                 order by kind, key limit %(limit)s""",  # noqa: S608  (column names of this module)
            self._values | place,
        )
        return [EntityKey(*row) for row in found]
