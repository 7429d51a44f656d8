"""The consumer's command line."""

from __future__ import annotations

import getpass

import pytest

from services.consumer.__main__ import main


def test_help_is_printed_for_a_user_that_has_no_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a container the process runs under a bare number; getpass raises KeyError, from Python 3.13 on OSError."""

    def nameless() -> str:
        raise KeyError

    monkeypatch.setattr(getpass, "getuser", nameless)
    with pytest.raises(SystemExit) as ended:
        main(["policy", "apply", "--help"])
    assert ended.value.code == 0
    assert "--actor" in capsys.readouterr().out
