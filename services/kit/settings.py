"""What a process reads from its environment, as text for people: the table of `--help`, and what is wrong with a value."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

_WIDTH = 110


def variable(settings: type[BaseSettings], field: str) -> str:
    """The environment variable of a field."""
    return f"{settings.model_config.get('env_prefix', '')}{field}".upper()


def describe(*classes: type[BaseSettings]) -> str:
    """Every variable with its default (or that it is needed) and its meaning."""
    return "\n".join(_lines(variable(one, name), field) for one in classes for name, field in one.model_fields.items())


def _lines(name: str, field: FieldInfo) -> str:
    default = "needed" if field.default is PydanticUndefined else "" if field.default is None else f"default {field.default}"
    text = "; ".join(filter(None, [default, field.description]))
    return textwrap.fill(text, _WIDTH, initial_indent=f"  {name}\n      ", subsequent_indent="      ", break_on_hyphens=False)


def explain(error: ValidationError, classes: Iterable[type[BaseSettings]]) -> str:
    """What to change, by variable; never the value, which may be a secret."""
    owners = {name: variable(one, name) for one in classes for name in one.model_fields}
    lines = [
        f"{owners.get(str(problem['loc'][0]), problem['loc'][0]) if problem['loc'] else 'settings'}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)
    ]
    return "\n".join(lines)
