"""The committed examples are valid for a plain JSON Schema validator, for our decoder, and hashed as we hash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import schemas
from schemas import generate
from schemas.codec import build, content_hash, decode, encode, state
from schemas.events import EVENT_MODELS
from schemas.generate import event_schema
from schemas.keys import EntityKind
from services.publisher.changes import MirrorRow
from services.publisher.mirror.fold import fold

EXAMPLES = sorted((Path(schemas.__file__).parent / "examples").glob("*/*.json"))


def kind_of(file: Path) -> EntityKind:
    return next(kind for kind in EVENT_MODELS if kind == file.parent.name)


def validator(kind: EntityKind) -> Draft202012Validator:
    schema = generate.load(generate.FOLDER, kind)
    assert schema is not None
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def test_every_kind_has_an_example() -> None:
    assert {kind_of(file) for file in EXAMPLES} == set(EVENT_MODELS)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: f"{file.parent.name}/{file.stem}")
class TestExample:
    def test_it_fits_the_published_schema(self, file: Path) -> None:
        validator(kind_of(file)).validate(json.loads(file.read_text()))

    def test_it_is_read_and_written_unchanged(self, file: Path) -> None:
        event = decode(kind_of(file), file.read_bytes())
        assert json.loads(encode(event)) == json.loads(file.read_text())

    def test_its_hash_is_the_one_we_compute(self, file: Path) -> None:
        """The examples freeze the algorithm: another one would make every version in every log an alarm."""
        event = decode(kind_of(file), file.read_bytes())
        assert content_hash(state(event)) == event.content_hash

    def test_its_source_rows_fold_into_its_state(self, file: Path) -> None:
        """So a mirror that lost its history can be rebuilt from the log, and the examples are what the publisher writes."""
        event = decode(kind_of(file), file.read_bytes())
        rows = [MirrorRow(row.record, row.key, row.values, row.deleted, row.order) for row in event.source_rows]
        if rows:
            folded = {"tenant": event.tenant, **fold(kind_of(file), event.entity_key, rows)}
            assert content_hash(folded) == event.content_hash

    def test_an_unknown_field_fits_no_writer_but_every_reader(self, file: Path) -> None:
        data = json.loads(file.read_text()) | {"added_later": "x"}
        assert not validator(kind_of(file)).is_valid(data)
        assert decode(kind_of(file), json.dumps(data).encode()) == decode(kind_of(file), file.read_bytes())
        with pytest.raises(ValueError, match="added_later"):
            build(kind_of(file), data)

    def test_each_missing_required_field_is_noticed(self, file: Path) -> None:
        data = json.loads(file.read_text())
        for name in event_schema(kind_of(file))["required"]:
            broken = {key: value for key, value in data.items() if key != name}
            assert not validator(kind_of(file)).is_valid(broken)
            with pytest.raises(ValueError, match=name):
                decode(kind_of(file), json.dumps(broken).encode())
