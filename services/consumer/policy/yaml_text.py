"""YAML as registrars write it, and where in it a problem lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic_core import ErrorDetails


class NotYaml(ValueError):
    """The text cannot be read. The message names the line."""


def load(text: str) -> tuple[yaml.Node | None, Any]:
    """What the text says, and its nodes, which know their lines; raises `NotYaml`."""
    try:
        return yaml.compose(text, Loader=_Loader), yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader, and stricter)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise NotYaml(f"line {line}: {error.problem or 'not YAML'}") from error
    except (yaml.YAMLError, ValueError, IndexError, RecursionError) as error:
        raise NotYaml("line 1: not YAML text, or a value that is none, such as the 31st of September") from error


def explain(node: yaml.Node | None, problem: ErrorDetails) -> str:
    """The problem with its line, for people."""
    path = [part for part in problem["loc"] if part not in ("[key]", "a word", "more", "adoption")]
    reason = problem["msg"].removeprefix("Value error, ")
    place = ".".join(str(part) for part in path)
    return f"line {_line(node, path)}: {place + ': ' if place else ''}{reason}"


def _line(node: yaml.Node | None, path: list[int | str]) -> int:
    """The line of the deepest node on `path` that the text has."""
    line = node.start_mark.line + 1 if node else 1
    for part in path:
        found = next((entry for entry in _entries(node) if entry[0] == str(part)), None)
        if found is None:
            break
        _, mark, node = found
        line = mark.line + 1
    return line


def _entries(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Mark, yaml.Node]]:
    """What a mapping or a list holds: its name or place, where it begins, and itself."""
    if isinstance(node, yaml.MappingNode):
        yield from ((str(key.value), key.start_mark, value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from ((str(place), value.start_mark, value) for place, value in enumerate(node.value))


class _Loader(yaml.SafeLoader):
    """YAML without a trap: a key that is written twice is an error, not a silent replacement; and nothing stands for something
    else, because a few lines of that can be gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuses anchors and aliases, and with them merged keys."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(problem="write it out: anchors and aliases are not read", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def _unique_keys(loader: _Loader, node: yaml.MappingNode) -> Mapping[Any, Any]:
    seen = set()
    for key, _value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"{key.value} is written twice", problem_mark=key.start_mark)
        seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)
