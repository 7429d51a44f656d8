"""Events to bytes and back, and the content hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import orjson
from pydantic import ValidationError

from schemas.events import EVENT_MODELS, AnyEvent
from schemas.keys import EntityKind


class UndecodableEvent(ValueError):
    """The bytes are not an event: no reader, present or future, can use them. `reason` is a closed code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        """``not_json``, ``schema_invalid`` or ``tombstone``."""


class NewerEvent(ValueError):
    """The event is well formed but holds a value that only a newer reader knows; park it until the upgrade."""

    def __init__(self, field: str) -> None:
        super().__init__(f"unknown value in {field}")
        self.field = field


def encode(event: AnyEvent) -> bytes:
    """The record value: compact JSON with sorted keys. Absent optional values are left out."""
    return orjson.dumps(event.model_dump(mode="json", exclude_none=True), option=orjson.OPT_SORT_KEYS)


def decode(kind: EntityKind, value: bytes | None) -> AnyEvent:
    """Parse a record value; raises `UndecodableEvent`, or `NewerEvent` when only closed vocabularies are unknown."""
    if value is None:
        raise UndecodableEvent("tombstone", "a record without a value is not an event")
    try:
        data = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise UndecodableEvent("not_json", f"at byte {error.pos}") from error
    try:
        return EVENT_MODELS[kind].model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        names = sorted({".".join(str(part) for part in problem["loc"]) for problem in problems})
        if all(problem["type"] == "literal_error" for problem in problems):
            raise NewerEvent(", ".join(names)) from error
        raise UndecodableEvent("schema_invalid", ", ".join(names)) from error


def content_hash(state: Mapping[str, object]) -> str:
    """32 hex digits over the state of an entity: the event without version, hash, times and source rows."""
    return hashlib.sha256(orjson.dumps(dict(state), option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
