"""Policies for tests that are about something else."""

from __future__ import annotations

from services.consumer.policy.model import default_text


def unguarded(text: str | None = None) -> str:
    """The packaged policy, or `text`, with a guard that finds nothing too much: for feeds that no campus would send."""
    rules, _, _ = (text or default_text()).partition("\nguard:")
    nothing = "\n".join(f"  {scope}: {{}}" for scope in ("section", "course", "term", "tenant"))
    return f"{rules}\nguard:\n  wait_seconds: 0\n{nothing}\n  cancelled_section: 1000000\n  cancelled_term: 1000000\n"
