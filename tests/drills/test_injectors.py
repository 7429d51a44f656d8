"""A fault that silently does nothing is the commonest mistake of a drill: each injector shows that it bites."""

from __future__ import annotations

import os

import pytest

from tests.drills.catalogue import INJECTORS


@pytest.mark.parametrize("name", sorted(INJECTORS))
def test_the_injector_bites(name: str) -> None:
    injector = INJECTORS[name]
    if reason := injector.missing():
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    injector.prove()
