"""The contract as JSON Schema (draft 2020-12), one file per kind of event, generated from the models.

The schema is the *closed* one that writers keep to: no additional properties, absent instead of null.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from schemas.events import EVENT_MODELS
from schemas.keys import EntityKind

Schema = dict[str, Any]
FOLDER = Path(__file__).parent / "json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def file_name(kind: EntityKind) -> str:
    """Of the schema, in `FOLDER` and in every folder of released schemas."""
    return f"{kind}.v1.json"


def event_schema(kind: EntityKind) -> Schema:
    """The closed schema of one kind."""
    generated = EVENT_MODELS[kind].model_json_schema()
    return {"$schema": DIALECT, "$id": f"urn:enrollstream:{kind}:v1", **_closed(generated)}


def render(schema: Schema) -> str:
    """The committed text."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path = FOLDER) -> list[Path]:
    """Write every schema into `folder`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for kind in EVENT_MODELS:
        files.append(folder / file_name(kind))
        files[-1].write_text(render(event_schema(kind)))
    return files


def stale(folder: Path = FOLDER) -> list[Path]:
    """Files that are missing or differ from what the models say now."""
    expected = {folder / file_name(kind): render(event_schema(kind)) for kind in EVENT_MODELS}
    return [file for file, text in expected.items() if not file.exists() or file.read_text() != text]


def load(folder: Path, kind: EntityKind) -> Schema | None:
    """A committed schema, None when the folder has none of this kind."""
    file = folder / file_name(kind)
    schema: Schema | None = json.loads(file.read_text()) if file.exists() else None
    return schema


def _closed(node: Any) -> Any:
    """Forbid unknown properties, and turn "value or null" into "value": encoders leave absent values out."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {name: _closed(value) for name, value in node.items() if not (name == "title" and isinstance(value, str))}
    if "properties" in node or "patternProperties" in node:
        node["additionalProperties"] = False
    if "anyOf" in node:
        node = _without_null(node)
    return node


def _without_null(node: Schema) -> Schema:
    options = [option for option in node["anyOf"] if option != {"type": "null"}]
    rest = {name: value for name, value in node.items() if name != "anyOf" and not (name == "default" and value is None)}
    return {**options[0], **rest} if len(options) == 1 else {**rest, "anyOf": options}
