"""Faults on demand: which exist, whom they hit, how long they last, and how often each one really bit."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal[
    "latency",  # later by `ms` and up to `jitter_ms`; adds to whatever else bites
    "status",  # answer `status` with `body`
    "hang",  # take the request and never answer
    "reset",  # a real TCP reset instead of an answer
    "drip",  # answer one byte at a time, `bytes_per_second`
    "html",  # 200 with a maintenance page
    "redirect",  # 302 to a login page
    "empty",  # 200 without a body
    "truncated",  # the answer's body is cut in the middle
    "other_user",  # the answer speaks of another person
    "unchanged",  # 200, but the body shows the old state, and nothing was changed
    "pretend",  # 200 with the body of a success, and nothing was changed
    "throttled",  # refused as if the bucket were full
    "foreign_link",  # the next page lies on another `origin`
]
_APPLIES = frozenset({"reset", "drip", "truncated", "other_user", "foreign_link"})


class FaultSpec(BaseModel):
    """One fault as asked for. All given limits must hold; without any it hits every call to the API until removed."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    methods: frozenset[str] | None = Field(default=None, description="for example POST")
    endpoints: frozenset[str] | None = Field(default=None, description="for example enrollments.create")
    user: str | None = Field(default=None, description="SIS id of the person the call is about")
    section: str | None = Field(default=None, description="SIS id of the section the call is about")
    count: int | None = Field(default=None, ge=1, description="bites so many times")
    for_seconds: float | None = Field(default=None, gt=0, description="ends after so long")
    probability: float = Field(default=1.0, gt=0, le=1)
    apply: bool | None = Field(default=None, description="whether the call takes effect; the default depends on the kind")
    ms: float = Field(default=0, ge=0)
    jitter_ms: float = Field(default=0, ge=0)
    status: int = Field(default=503, ge=400, le=599)
    body: Any = Field(default=None, description="of kind status: JSON, or text when it is a string")
    bytes_per_second: float = Field(default=1.0, gt=0)
    origin: str = "http://elsewhere.invalid"

    @property
    def applies(self) -> bool:
        """Whether the call takes effect before the fault shows."""
        return self.kind in _APPLIES if self.apply is None else self.apply


class Subject(NamedTuple):
    """What a call is about, for the limits of a fault. SIS ids where known, else what the caller wrote."""

    method: str
    endpoint: str
    user: str | None = None
    section: str | None = None


@dataclass(slots=True, eq=False)
class Fault:
    """A fault at work."""

    id: int
    spec: FaultSpec
    until: float | None
    bit: int = 0
    """How many calls it has hit."""

    def over(self, now: float) -> bool:
        """Used up or expired."""
        return (self.spec.count is not None and self.bit >= self.spec.count) or (self.until is not None and now >= self.until)

    def hits(self, subject: Subject) -> bool:
        """Whether the limits let it hit this call."""
        spec = self.spec
        return (
            (spec.methods is None or subject.method in spec.methods)
            and (spec.endpoints is None or subject.endpoint in spec.endpoints)
            and (spec.user is None or subject.user == spec.user)
            and (spec.section is None or subject.section == spec.section)
        )


class Picked(NamedTuple):
    """What happens to one call: a delay, and at most one fault besides."""

    delay_seconds: float = 0.0
    spec: FaultSpec | None = None


class Faults:
    """The faults that were set, in order; ended ones stay listed with their count. Chance comes from a seeded generator."""

    def __init__(self, monotonic: Callable[[], float], chance: random.Random) -> None:
        self._monotonic = monotonic
        self._chance = chance
        self._ids = itertools.count(1)
        self._faults: list[Fault] = []

    @property
    def any(self) -> bool:
        """Whether it is worth finding out what a call is about."""
        return bool(self._faults)

    def add(self, spec: FaultSpec) -> Fault:
        """Set a fault from now on."""
        until = self._monotonic() + spec.for_seconds if spec.for_seconds else None
        fault = Fault(next(self._ids), spec, until)
        self._faults.append(fault)
        return fault

    def remove(self, identity: int | None = None) -> int:
        """Remove one fault, or all; returns how many."""
        kept = [fault for fault in self._faults if identity is not None and fault.id != identity]
        removed = len(self._faults) - len(kept)
        self._faults = kept
        return removed

    def pick(self, subject: Subject) -> Picked:
        """Decide what hits this call, and count it: all delays, and the first other fault."""
        delay, chosen = 0.0, None
        for fault in self._faults:
            delays = fault.spec.kind == "latency"
            if (delays or chosen is None) and self._bites(fault, subject):
                fault.bit += 1
                if delays:
                    delay += (fault.spec.ms + self._chance.random() * fault.spec.jitter_ms) / 1000
                else:
                    chosen = fault.spec
        return Picked(delay, chosen)

    def _bites(self, fault: Fault, subject: Subject) -> bool:
        if fault.over(self._monotonic()) or not fault.hits(subject):
            return False
        return fault.spec.probability >= 1 or self._chance.random() < fault.spec.probability

    def as_json(self) -> list[dict[str, Any]]:
        """Every fault with its count and whether it can still bite."""
        now = self._monotonic()
        return [
            {
                "id": fault.id,
                "bit": fault.bit,
                "over": fault.over(now),
                **fault.spec.model_dump(mode="json", exclude_defaults=True),
            }
            for fault in self._faults
        ]
