"""Where something is, as answers tell it."""

from __future__ import annotations

from schemas import keys

_NAMES = {
    "section": ("institution", "term", "section"),
    "course": ("institution", "course"),
    "term": ("institution", "term"),
    "tenant": (),
}


def place(scope: str, key: str) -> dict[str, str]:
    """The parts of a scope's key, by name."""
    if scope == "source":
        return {"source": key}
    names = _NAMES[scope.removeprefix("cancelled_").removeprefix("reused_")]
    return dict(zip(names, keys.split(key) if key else (), strict=True))
