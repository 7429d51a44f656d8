"""Policies for tests that are about something else than the guard."""

from __future__ import annotations

from services.consumer.policy.model import default_text


def unguarded() -> str:
    """The packaged policy without its guard: for feeds that no campus would send."""
    before, _, rest = default_text().partition("\nguard:")
    return before + "\nguard: none\n\ndrift:" + rest.partition("\ndrift:")[2]


def making(*kinds: str, **rules: str) -> str:
    """The packaged policy without its guard, that makes objects of these kinds: ``terms``, ``courses``, ``sections``, ``people``.
    `rules` says how, in YAML; otherwise as by default."""
    text = unguarded()
    ids = '\n  course: "{institution}-{course}"\n  term: "{institution}-{term}"\n'
    text = text.replace(
        '\n  section: "{institution}-{term}-{section}"\n', '\n  section: "{institution}-{term}-{section}"' + ids, 1
    )
    for kind in {*kinds, *rules}:
        text = text.replace(f"\n  {kind}: none\n", f"\n  {kind}: {rules.get(kind, '{}')}\n")
    return text
