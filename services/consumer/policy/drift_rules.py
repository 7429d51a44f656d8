"""What becomes of what others changed in the LMS: the policy's part about drift."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from services.consumer.policy.parts import Part, word_or_more
from services.consumer.policy.roles import BaseRole


class RemoveAfter(Part):
    """What nobody gave goes after so many days; until then it is listed with its day."""

    remove_after_days: int = Field(ge=0, le=366)


class AdoptFor(Part):
    """What somebody did in the LMS holds for so many days, as an override; then the SIS decides again."""

    adopt_for_days: int = Field(ge=1, le=730)
    """An override has an end, at most two years away."""


def _which(rule: object) -> str:
    if isinstance(rule, AdoptFor) or (isinstance(rule, dict) and "adopt_for_days" in rule):
        return "adoption"
    return word_or_more(rule)


_ExtraRule = Annotated[
    Annotated[Literal["report"], Tag("a word")] | Annotated[RemoveAfter, Tag("more")] | Annotated[AdoptFor, Tag("adoption")],
    Discriminator(_which),
]
_SeatRule = Annotated[
    Annotated[Literal["report", "repair"], Tag("a word")] | Annotated[AdoptFor, Tag("more")], Discriminator(word_or_more)
]


class DriftRules(Part):
    """What becomes of what the rosters of the LMS show otherwise than the ledger; see `rosters.comparing.Kind`. A policy that
    does not say has everything listed, and nothing touched."""

    missing: _SeatRule = "report"
    wrong_state: _SeatRule = "report"
    wrong_role: _SeatRule = "report"
    extra_manual: _ExtraRule = "report"
    extra_sis: _ExtraRule = "report"
    extra_roles: list[BaseRole] = Field(default=["StudentEnrollment"])
    """Base roles whose extra members are looked at: teachers add their own assistants."""
    most_repairs: int = Field(default=500, ge=0)
    """In one comparison, adoptions included; the rest is only listed."""

    def repairs(self, kind: str, stands_for: timedelta) -> bool:
        """Whether a difference of this kind, which has stood for so long, is to be undone now."""
        rule = getattr(self, kind, "report")
        if isinstance(rule, RemoveAfter):
            return stands_for >= timedelta(days=rule.remove_after_days)
        return bool(rule == "repair")

    def removed_after(self, kind: str) -> timedelta | None:
        """After what time extra members of this kind go; None: they are only listed."""
        rule = getattr(self, kind, None)
        return timedelta(days=rule.remove_after_days) if isinstance(rule, RemoveAfter) else None

    def adopted_for(self, kind: str) -> timedelta | None:
        """For what time a difference of this kind holds; None: it does not."""
        rule = getattr(self, kind, None)
        return timedelta(days=rule.adopt_for_days) if isinstance(rule, AdoptFor) else None
