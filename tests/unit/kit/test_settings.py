"""The table of --help and the messages about wrong values."""

from __future__ import annotations

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings

from services.kit.settings import describe, explain


class Example(BaseSettings):
    model_config = {"env_prefix": "EXAMPLE_"}

    secret: SecretStr = Field(min_length=20, description="the secret")
    port: int = Field(default=80, description="the port")


def test_every_variable_is_named_with_default_and_meaning() -> None:
    assert describe(Example) == "  EXAMPLE_SECRET\n      needed; the secret\n  EXAMPLE_PORT\n      default 80; the port"


def test_an_error_names_the_variable_and_never_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_SECRET", "hunter2")
    monkeypatch.setenv("EXAMPLE_PORT", "eighty")

    with pytest.raises(ValidationError) as caught:
        Example()

    told = explain(caught.value, [Example])
    assert [line.split(":")[0] for line in told.splitlines()] == ["EXAMPLE_SECRET", "EXAMPLE_PORT"]
    assert "hunter2" not in told
    assert "eighty" not in told
