"""Who may call."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.kit.credentials import Callers, CredentialFileError, basic


@pytest.mark.parametrize("line", ["campus:", ":secret", "campus"])
@pytest.mark.parametrize("header", ["Bearer", "Bearer ", basic("campus", ""), None])
def test_a_line_without_a_name_or_a_secret_lets_nobody_in(tmp_path: Path, line: str, header: str | None) -> None:
    file = tmp_path / "callers"
    file.write_text(line + "\n")
    with pytest.raises(CredentialFileError, match="name:secret"):
        Callers(file).identify(header)
