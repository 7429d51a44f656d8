"""Files in YAML that an operator writes, read once at the start."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

Said = TypeVar("Said")


class YamlFileError(RuntimeError):
    """The file cannot be used; the message says which file and what to change."""


def read(path: Path, model: TypeAdapter[Said]) -> Said:
    """What the file says; raises `YamlFileError`. An empty one says nothing: an empty mapping."""
    try:
        return model.validate_python(yaml.safe_load(path.read_text()) or {})
    except OSError as error:
        raise YamlFileError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise YamlFileError(f"{path} is no YAML: {error}") from error
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, found['loc'])) or 'the whole'}: {found['msg']}" for found in error.errors())
        raise YamlFileError(f"{path}: {'; '.join(problems)}") from error
