"""Republishes: which entities are emitted again, and how far that has come.

One is a row that any process works on, a page at a time, so that it survives the process that was asked. The one that has waited
longest is next: a small one does not wait for a large one. A page that is emitted twice, after a crash, is harmless.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.keys import EntityKey
from services.kit.postgres import Connection

CHUNK = 100
"""Entities per transaction: each is locked for as long as the transaction takes."""
_CLAIM_SECONDS = 15
"""A process that has not finished a page for so long is taken for dead."""
_KEEP_DAYS = 30
_LISTED = 50


class Scope(BaseModel):
    """Which entities; the given fields all have to match. Exactly everything needs ``all``."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        str_min_length=1,
        str_max_length=255,
        json_schema_extra={"examples": [{"term": "2267", "section": "26191"}]},
    )

    tenant: str | None = Field(default=None, description="one SIS id space; the publisher's own when absent")
    institution: str | None = Field(default=None, examples=["NORTH"])
    term: str | None = Field(default=None, examples=["2267"])
    section: str | None = Field(default=None, description="needs its term: section numbers repeat", examples=["26191"])
    person: str | None = Field(default=None, description="the person and everything they are enrolled in", examples=["0090001"])
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

    def __init__(self, scope: Scope) -> None:
        """The scope names its tenant."""
        named = {"institution": scope.institution, "term": scope.term, "section": scope.section, "person": scope.person}
        self._values = {"tenant": scope.tenant} | {name: value for name, value in named.items() if value is not None}
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


@dataclass(frozen=True, slots=True)
class Republish:
    """One republish, as far as it has come."""

    id: uuid.UUID
    scope: Scope
    count: int
    """Entities in the scope when it was asked for."""
    emitted: int
    asked_at: datetime
    ended_at: datetime | None
    after: EntityKey | None = None
    """The last entity that was emitted."""

    @property
    def done(self) -> bool:
        """Nothing is left to emit."""
        return self.ended_at is not None


_COLUMNS = "id, scope, total, done, asked_at, ended_at, after_kind, after_key"
_CLAIM = f"worker = %(worker)s, worker_until = clock_timestamp() + make_interval(secs => {_CLAIM_SECONDS})"


def ask(connection: Connection, scope: Scope, tenant: str, worker: uuid.UUID) -> Republish:
    """Note what is wanted; durable when it returns, and the asking process is the first to work on it."""
    meant = scope.model_copy(update={"tenant": scope.tenant or tenant})
    values = {
        "id": uuid.uuid4(),
        "scope": meant.model_dump_json(exclude_none=True),
        "total": Selection(meant).count(connection),
        "worker": worker,
    }
    with connection.transaction():
        connection.execute("set local synchronous_commit = on")
        connection.execute("delete from republish where ended_at < clock_timestamp() - make_interval(days => %s)", [_KEEP_DAYS])
        row = connection.execute(
            f"""insert into republish (id, scope, total, worker, worker_until)
                values (%(id)s, %(scope)s::jsonb, %(total)s, %(worker)s,
                        clock_timestamp() + make_interval(secs => {_CLAIM_SECONDS}))
                returning {_COLUMNS}""",  # noqa: S608  (constants of this module)
            values,
        ).fetchone()
    assert row is not None  # noqa: S101
    return _republish(row)


def claim(connection: Connection, worker: uuid.UUID) -> Republish | None:
    """The one whose turn it is, kept from other processes for a while; None when there is nothing to do."""
    row = connection.execute(
        f"""update republish set {_CLAIM}, worked_at = clock_timestamp()
             where id = (select id from republish
                          where ended_at is null and (worker is null or worker = %(worker)s or worker_until < clock_timestamp())
                          order by worked_at limit 1 for update skip locked)
            returning {_COLUMNS}""",  # noqa: S608
        {"worker": worker},
    ).fetchone()
    return _republish(row) if row else None


def advance(connection: Connection, asked: Republish, page: list[EntityKey], worker: uuid.UUID) -> None:
    """Note that a page was emitted; a short page is the last one. Says nothing where another process has taken over."""
    last = page[-1] if page else None
    connection.execute(
        f"""update republish
               set {_CLAIM}, done = done + %(count)s, after_kind = coalesce(%(kind)s, after_kind),
                   after_key = coalesce(%(key)s, after_key), ended_at = case when %(last)s then clock_timestamp() end
             where id = %(id)s and worker = %(worker)s and ended_at is null""",  # noqa: S608
        {
            "id": asked.id,
            "worker": worker,
            "count": len(page),
            "kind": last and last.kind,
            "key": last and last.key,
            "last": len(page) < CHUNK,
        },
    )


def release(connection: Connection, worker: uuid.UUID) -> None:
    """Let other processes go on at once."""
    connection.execute("update republish set worker = null where worker = %s and ended_at is null", [worker])


def find(connection: Connection, republish_id: uuid.UUID) -> Republish | None:
    """How far one has come."""
    row = connection.execute(f"select {_COLUMNS} from republish where id = %s", [republish_id]).fetchone()  # noqa: S608
    return _republish(row) if row else None


def newest(connection: Connection) -> list[Republish]:
    """The latest ones."""
    rows = connection.execute(
        f"select {_COLUMNS} from republish order by asked_at desc limit {_LISTED}"  # noqa: S608
    )
    return [_republish(row) for row in rows]


def _republish(row: tuple[Any, ...]) -> Republish:
    scope = Scope.model_validate_json(orjson.dumps(row[1]))
    after = EntityKey(scope.tenant or "", row[6], row[7]) if row[6] else None
    return Republish(row[0], scope, row[2], row[3], row[4], row[5], after)
