"""How much may be taken away before a person is asked: the policy's part about the guard."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from services.consumer.policy.parts import Part


class Limit(Part):
    """How many removals within a window are too many; without any number none are."""

    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    """Of the seats that give access."""
    at_least: Annotated[int, Field(ge=1)] | None = None
    """Fewer are never too many by their percentage."""
    most: Annotated[int, Field(ge=0)] | None = None
    """More are too many, whatever their percentage."""

    @model_validator(mode="after")
    def _belongs_together(self) -> Limit:
        if (self.percent is None) != (self.at_least is None):
            raise ValueError("percent and at_least belong together: a percentage of a handful says nothing")
        return self

    def reached(self, removals: int, active: int, share: float = 1.0) -> bool:
        """Whether so many removals, of so many seats that give access, reach this `share` of the limit."""
        by_number = self.most is not None and removals > self.most * share
        if self.percent is None or self.at_least is None:
            return by_number
        return by_number or (removals >= self.at_least * share and removals * 100 >= active * self.percent * share)

    def __str__(self) -> str:
        """As the policy writes it."""
        numbers = {name: getattr(self, name) for name in ("percent", "at_least", "most")}
        return ", ".join(f"{name} {number:g}" for name, number in numbers.items() if number is not None)


class Limits(Part):
    """Of one scope, over the last 15 minutes and the last 24 hours."""

    quarter_hour: Limit = Limit()
    day: Limit = Limit()


class GuardRules(Part):
    """How much may be taken away before a person is asked."""

    wait_seconds: float = Field(default=60, ge=0, le=300)
    """How long a burst is counted before any of it is sent."""
    section: Limits = Limits(quarter_hour=Limit(percent=50, at_least=10), day=Limit(percent=80, at_least=15))
    course: Limits = Limits(quarter_hour=Limit(percent=50, at_least=20), day=Limit(percent=80, at_least=30))
    term: Limits = Limits(quarter_hour=Limit(percent=2, at_least=50, most=200), day=Limit(percent=5, at_least=100, most=1000))
    tenant: Limits = Limits(quarter_hour=Limit(most=500), day=Limit(percent=10, at_least=500))
    source: Limits = Limits()
    """Of each channel by which changes come; percentages are of all seats of the tenant."""
    cancelled_section: Annotated[int, Field(ge=0)] | None = 100
    """Members of a cancelled class that go without asking; None: any number."""
    cancelled_term: Annotated[int, Field(ge=0)] | None = 1000
    """Members of all cancelled classes of a term that go within a day without asking; None: any number."""
    two_people_above: Annotated[int, Field(ge=0)] | None = 1000
    """Removals of one hold that one person may let go; for more it takes two. None: any number."""


NO_GUARD = GuardRules(
    wait_seconds=0,
    section=Limits(),
    course=Limits(),
    term=Limits(),
    tenant=Limits(),
    cancelled_section=None,
    cancelled_term=None,
    two_people_above=None,
)
"""``guard: none``: nothing is too much."""
