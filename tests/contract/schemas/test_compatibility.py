"""The contract cannot change under the readers of a release unnoticed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas import compatibility, generate
from schemas.__main__ import main
from schemas.compatibility import breaking_changes
from schemas.events import EVENT_MODELS
from schemas.generate import event_schema, render

Schema = dict[str, Any]
BASE = event_schema("enrollment")


def planted(change: Callable[[Schema], object], kind: Schema = BASE) -> list[str]:
    schema = copy.deepcopy(kind)
    change(schema)
    return breaking_changes(kind, schema)


def of(schema: Schema, name: str) -> Schema:
    found: Schema = schema["properties"][name]
    return found


def test_the_committed_contract_is_current_and_compatible() -> None:
    assert generate.stale() == []
    assert compatibility.problems() == []


def test_every_kind_is_in_a_release() -> None:
    for release in compatibility.RELEASED.iterdir():
        assert all(generate.load(release, kind) is not None for kind in EVENT_MODELS)


BREAKING: dict[str, Callable[[Schema], object]] = {
    "a property removed": lambda s: s["properties"].pop("codes"),
    "a required property removed": lambda s: (s["properties"].pop("section"), s["required"].remove("section")),
    "a property renamed": lambda s: s["properties"].update(person_id=s["properties"].pop("person")),
    "required made optional": lambda s: s["required"].remove("person"),
    "optional made required": lambda s: s["required"].append("effective_date"),
    "a new required property": lambda s: (s["properties"].update(campus={"type": "string"}), s["required"].append("campus")),
    "text made a number": lambda s: of(s, "person").update(type="integer"),
    "a longer id": lambda s: of(s, "person").update(maxLength=1000),
    "a shorter id": lambda s: of(s, "person").update(maxLength=20),
    "an empty id": lambda s: of(s, "person").pop("minLength"),
    "another pattern": lambda s: of(s, "content_hash").update(pattern="^[0-9a-f]{64}$"),
    "no pattern": lambda s: of(s, "content_hash").pop("pattern"),
    "versions from zero": lambda s: of(s, "version").update(exclusiveMinimum=-1),
    "another format": lambda s: of(s, "effective_date").update(format="date-time"),
    "a word removed": lambda s: of(s, "status")["enum"].remove("withdrawn"),
    "a vocabulary opened": lambda s: of(s, "status").pop("enum"),
    "a vocabulary closed": lambda s: of(s, "term").update(enum=["2267"]),
    "other codes": lambda s: of(s, "codes")["patternProperties"].update({"^[^\\x00]*$": {"type": "integer"}}),
    "another item": lambda s: of(s, "source_rows").update(items={"type": "string"}),
    "null allowed": lambda s: of(s, "effective_date").update(type=["string", "null"]),
    "a property removed further down": lambda s: s["$defs"]["OrderToken"]["properties"].pop("position"),
    "another default further down": lambda s: s["$defs"]["SourceRow"]["properties"]["deleted"].update(default=True),
    "required made optional further down": lambda s: s["$defs"]["SourceRow"]["required"].remove("values"),
    "opened": lambda s: s.update(additionalProperties=True),
}


@pytest.mark.parametrize("name", BREAKING)
def test_a_planted_breaking_change_is_caught(name: str) -> None:
    assert planted(BREAKING[name])


ALLOWED: dict[str, Callable[[Schema], object]] = {
    "nothing": lambda s: None,
    "an optional property": lambda s: s["properties"].update(campus={"type": "string"}),
    "an optional property further down": lambda s: s["$defs"]["OrderToken"]["properties"].update(shard={"type": "string"}),
    "a word added": lambda s: of(s, "status")["enum"].append("audited"),
    "a better description": lambda s: of(s, "status").update(description="…"),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_an_additive_change_may_ship(name: str) -> None:
    assert planted(ALLOWED[name]) == []


def test_one_word_may_become_two() -> None:
    one, two = (
        {"properties": {"a": {"const": "x", "type": "string"}}},
        {"properties": {"a": {"enum": ["x", "y"], "type": "string"}}},
    )
    assert breaking_changes(one, two) == []
    assert breaking_changes(two, one) == ["/a: the word 'y' is gone"]


def test_a_stale_file_is_found(tmp_path: Path) -> None:
    generate.write(tmp_path)
    assert generate.stale(tmp_path) == []
    (tmp_path / "person.v1.json").write_text(render(event_schema("person") | {"required": []}))
    (tmp_path / "term.v1.json").unlink()
    assert [file.name for file in generate.stale(tmp_path)] == ["person.v1.json", "term.v1.json"]


def test_every_release_is_compared_not_only_the_last(tmp_path: Path) -> None:
    for release in ("0.1.0", "0.2.0"):
        generate.write(tmp_path / release)
    older = event_schema("person")
    older["properties"]["pronouns"] = {"type": "string"}
    (tmp_path / "0.1.0" / "person.v1.json").write_text(render(older))
    assert compatibility.problems(released=tmp_path) == ["0.1.0 person: /pronouns: the property is gone"]


def test_a_kind_that_disappears_is_found(tmp_path: Path) -> None:
    generate.write(tmp_path)
    (tmp_path / "term.v1.json").unlink()
    assert "0.1.0 term: the kind is gone" in compatibility.problems(current=tmp_path)


def test_the_check_command_answers_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check"]) == 0
    assert "compatible" in capsys.readouterr().out
    monkeypatch.setattr(generate, "stale", lambda: [Path("person.v1.json")])
    assert main(["check"]) == 1
    assert "run `python -m schemas write`" in capsys.readouterr().err


def test_a_released_version_does_not_change() -> None:
    assert main(["release", "0.1.0"]) == 1
