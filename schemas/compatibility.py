"""Does a changed contract still work for the readers of a release, and do new readers still read what that release wrote?

Both matter: publishers and consumers are upgraded one after the other, and the log keeps 30 days of old events that a replay
reads again. So a property may only be added, and only as an optional one; a vocabulary may only grow (old readers park an
event with an unknown word, see docs/decisions/0007). Everything else needs a new topic version.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas.events import EVENT_MODELS
from schemas.generate import FOLDER, Schema, load

RELEASED = Path(__file__).parent / "released"
"""One folder per release, with the schemas that its readers know."""

_ANNOTATIONS = frozenset({"$schema", "$id", "$defs", "title", "description", "examples", "deprecated"})
_COMPARED_IN_DEPTH = frozenset({"properties", "patternProperties", "additionalProperties", "required", "items", "enum", "const"})


def problems(current: Path = FOLDER, released: Path = RELEASED) -> list[str]:
    """What would break, over all releases; empty when the contract may ship."""
    return [
        f"{release.name} {kind}: {problem}"
        for release in sorted(released.iterdir())
        for kind in EVENT_MODELS
        if (old := load(release, kind)) is not None
        for problem in _against(old, load(current, kind))
    ]


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """Each difference between two schemas of one kind that a reader of either side would notice, as ``path: what``."""
    return list(_compare("", old, new, old, new))


def _against(old: Schema, new: Schema | None) -> list[str]:
    return ["the kind is gone"] if new is None else breaking_changes(old, new)


def _compare(path: str, old: Any, new: Any, old_root: Schema, new_root: Schema) -> Iterator[str]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield f"{path or '/'}: was {old!r}, is {new!r}"
        return
    old, new = _resolved(old, old_root), _resolved(new, new_root)
    yield from _keywords(path, old, new)
    yield from _vocabulary(path, old, new)
    yield from _properties(path, old, new, old_root, new_root)
    for keyword in ("items", "additionalProperties"):
        if keyword in old or keyword in new:
            yield from _compare(f"{path}/{keyword}", old.get(keyword), new.get(keyword), old_root, new_root)


def _keywords(path: str, old: Schema, new: Schema) -> Iterator[str]:
    """Type, bounds, pattern, default, ...: narrower fails on old events, wider fails at old readers."""
    for keyword in sorted((old.keys() | new.keys()) - _ANNOTATIONS - _COMPARED_IN_DEPTH):
        if old.get(keyword) != new.get(keyword):
            yield f"{path or '/'}: {keyword} was {old.get(keyword)!r}, is {new.get(keyword)!r}"


def _vocabulary(path: str, old: Schema, new: Schema) -> Iterator[str]:
    before, after = _words(old), _words(new)
    if (before is None) != (after is None):
        yield f"{path or '/'}: a closed vocabulary became open or the other way round"
    for word in sorted((before or set()) - (after or set())) if after is not None else ():
        yield f"{path or '/'}: the word {word!r} is gone"


def _words(schema: Schema) -> set[Any] | None:
    if "const" in schema:
        return {schema["const"]}
    return set(schema["enum"]) if "enum" in schema else None


def _properties(path: str, old: Schema, new: Schema, old_root: Schema, new_root: Schema) -> Iterator[str]:
    must_before, must_now = set(old.get("required", ())), set(new.get("required", ()))
    for keyword in ("properties", "patternProperties"):
        before, after = old.get(keyword, {}), new.get(keyword, {})
        for name in before:
            if name not in after:
                yield f"{path}/{name}: the property is gone"
                continue
            if (name in must_before) != (name in must_now):
                yield f"{path}/{name}: {'was required, is optional' if name in must_before else 'was optional, is required'}"
            yield from _compare(f"{path}/{name}", before[name], after[name], old_root, new_root)
        for name in sorted((after.keys() - before.keys()) & must_now):
            yield f"{path}/{name}: a new property must be optional"


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Follow one local reference; what stands beside it counts too."""
    if "$ref" not in schema:
        return schema
    target: Any = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
