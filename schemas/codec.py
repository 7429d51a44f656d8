"""Events to bytes and back, and the content hash.

What a writer may write is closed, what a reader may read is open: a field that the contract does not have is refused here on
the way out and ignored on the way in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.events import EVENT_MODELS, AnyEvent, Event
from schemas.keys import EntityKind

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""An escaped NUL; one behind an escaped backslash is text."""

_VALIDATE = {model: model.__pydantic_validator__.validate_json for model in EVENT_MODELS.values()}
"""What `model_validate_json` calls, without the tenth that it adds."""

NOT_STATE = frozenset(Event.model_fields) - {"tenant"}
"""What every event carries around the state of its entity; the tenant is part of what it is about."""


class InvalidEvent(ValueError):
    """A writer made something that the contract does not allow; a defect of the writer. The message names fields, no values."""


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


def build(kind: EntityKind, fields: Mapping[str, object]) -> AnyEvent:
    """The event of `kind` with these fields; raises `InvalidEvent` for a missing, wrong or unknown one."""
    try:
        return EVENT_MODELS[kind].model_validate(dict(fields), extra="forbid")
    except ValidationError as error:
        raise InvalidEvent(f"{kind}: {_field_names(_problems(error))}") from error


def encode(event: AnyEvent) -> bytes:
    """The record value: compact JSON with sorted keys. Absent optional values are left out.

    Raises `InvalidEvent` when the bytes would not be read back: an event made by `model_copy` or `model_construct` has never
    been validated, and a record that no reader can use must not reach the log.
    """
    return _checked(type(event), event.model_dump(mode="json", exclude_none=True, warnings=False))


def compose(kind: EntityKind, fields: Mapping[str, object]) -> bytes:
    """The record value of the event of `kind` with these fields, which hold JSON's types and times; None counts as absent.

    Like `build` and `encode` together, but the event is made once, of the bytes: this is on the way of every change. Raises
    `InvalidEvent`.
    """
    return _checked(EVENT_MODELS[kind], {name: value for name, value in fields.items() if value is not None})


def _checked(model: type[AnyEvent], fields: Mapping[str, object]) -> bytes:
    # A copy: what orjson returns keeps the room it was written in, several times its size, and events wait by thousands.
    value = bytes(memoryview(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z)))
    try:
        _VALIDATE[model](value, strict=True, extra="forbid")
    except ValidationError as error:
        raise InvalidEvent(f"{model.__name__}: {_field_names(_problems(error))}") from error
    return value


def decode(kind: EntityKind, value: bytes | None) -> AnyEvent:
    """Parse a record value; raises `UndecodableEvent`, or `NewerEvent` when only closed vocabularies are unknown.

    Strict: a number where the contract has text is not an event. Otherwise an EMPLID could lose its leading zeros unnoticed.
    What decodes, fields that we do not know included, is JSON that PostgreSQL's jsonb takes: readers may store the value.
    """
    if value is None:
        raise UndecodableEvent("tombstone", "a record without a value is not an event")
    try:
        orjson.loads(value)  # pydantic's own parser lets NaN, infinite numbers and lone surrogates pass where it ignores a field
    except orjson.JSONDecodeError as error:
        raise UndecodableEvent("not_json", f"at character {error.pos}") from error
    if b"\\u0000" in value and _NUL.search(value):  # looking for the bytes first costs a hundredth of the pattern
        raise UndecodableEvent("schema_invalid", "a NUL character")
    try:
        return EVENT_MODELS[kind].model_validate_json(value, strict=True)
    except ValidationError as error:
        problems = _problems(error)
        if problems[0]["type"] == "json_invalid":
            raise UndecodableEvent("not_json", "nested too deeply") from error
        if all(map(_is_newer_word, problems)):
            raise NewerEvent(_field_names(problems)) from error
        raise UndecodableEvent("schema_invalid", _field_names(problems)) from error


def state(event: AnyEvent) -> dict[str, object]:
    """What the event says about its entity; what `content_hash` is taken over."""
    return event.model_dump(mode="json", exclude=set(NOT_STATE), exclude_none=True)


def content_hash(state: Mapping[str, object]) -> str:
    """32 hex digits over the state of an entity: the event without version, hash, times and source rows.

    Absent, None and empty mean the same, so that a new optional field does not change the hash of what does not use it.
    """
    said = {name: value for name, value in state.items() if value is not None and value != {}}
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def _problems(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False)


def _is_newer_word(problem: ErrorDetails) -> bool:
    """Vocabularies hold words: any other type in their place is broken, not new."""
    return problem["type"] == "literal_error" and isinstance(problem["input"], str)


def _field_names(problems: list[ErrorDetails]) -> str:
    """Top-level fields only: deeper down, locations hold the keys of open maps, which are data."""
    names = {str(problem["loc"][0]) if problem["loc"] else "the whole" for problem in problems}
    return ", ".join(sorted(names))
