"""`make up` says what is missing instead of failing somewhere inside."""

from __future__ import annotations

import argparse

import pytest

from services.sandbox.demo import up


def test_every_missing_variable_is_named_with_its_meaning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in up.NEEDED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CANVAS_URL", "https://canvas.example.edu")
    assert up.run(argparse.Namespace()) == 2
    said = capsys.readouterr().err
    assert [name for name in up.NEEDED if f"{name} is not set: " in said] == [name for name in up.NEEDED if name != "CANVAS_URL"]
