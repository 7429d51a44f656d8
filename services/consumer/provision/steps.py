"""The next step towards what an object should be, and what its outcome means. Pure.

What the LMS shows otherwise than wanted is changed only where that is ours to do. What we wrote last is kept as fingerprints: a
value that does not fit its fingerprint was changed by somebody since, and stays as they have it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

from services.consumer.drive.backoff import FAULT, PERMISSION, PROBE
from services.consumer.nouns import ObjectKind
from services.consumer.provision.wanting import Wish
from services.consumer.targets.objects import Attribute, NoParent, ObjectOutcome, ShownObject, WantedObject
from services.consumer.targets.port import (
    Concluded,
    IdentityMismatch,
    NoPermission,
    NotThere,
    Refused,
    ServerFault,
    Throttled,
    Unknown,
    WrongShape,
)

State = Literal["pending", "retrying", "waiting", "held", "refused", "suspect", "settled"]
"""`waiting`: for the SIS, or for what it has to be made in; `held`: more people are to be suspended than the policy allows
without asking; `refused`: a person has to look; `suspect`: as wanted, but a late call may still land."""
Origin = Literal["ours", "found"]
REFUSED_SECONDS = 6 * 3600.0
"""What the LMS refuses is tried again after this: somebody may have removed the cause."""
_NOT_SENT_SECONDS = 0.5
_MISMATCHES_BEFORE_REFUSED = 3


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger knows of the object."""

    attempts: int = 0
    origin: Origin | None = None
    confirmed: Mapping[Attribute, str] = field(default_factory=dict)
    """Attribute -> fingerprint of the value that we wrote last."""
    making: bool = False
    """An earlier call to make it may have been carried out."""
    suspect: bool = False
    """The outcome of an earlier call is not known for certain."""
    doubt: bool = False
    """It could still land when this attempt began."""


@dataclass(frozen=True, slots=True)
class Make:
    """It is not there."""


@dataclass(frozen=True, slots=True)
class Change:
    """These attributes are to be changed."""

    attributes: frozenset[Attribute]
    gently: bool
    """What a person has set by hand is left: of attributes that we never wrote."""

    def suspends(self, wish: Wish) -> bool:
        """Whether it takes a login away."""
        return wish.suspends and "state" in self.attributes


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing is ours to do."""

    kept: tuple[Attribute, ...] = ()
    """Attributes that somebody else has set otherwise."""


def next_step(wish: Wish, seen: ShownObject, known: Known) -> Change | Nothing:
    """What to do about what the LMS shows."""
    wanted = wish.wanted
    differs = [name for name, value in wanted.values.items() if seen.values.get(name) != value and name not in wish.fixed]
    ours = frozenset(name for name in differs if _is_ours(name, wanted, seen, known))
    if ours:
        return Change(ours, gently=False)
    gentle = frozenset(name for name in differs if name in wish.told and name not in known.confirmed)
    return Change(gentle, gently=True) if gentle else Nothing(tuple(sorted(differs)))


def _is_ours(name: Attribute, wanted: WantedObject, seen: ShownObject, known: Known) -> bool:
    if name == "state" and wanted.values[name] == "suspended":
        return True
    if name not in known.confirmed:
        return False
    return known.suspect or known.confirmed[name] == fingerprint(wanted, name, seen.values.get(name, ""))


def fingerprint(wanted: WantedObject, name: Attribute, value: str) -> str:
    """What tells one value of an object's attribute from another; the value cannot be read from it at a glance."""
    return hashlib.sha256("\0".join((wanted.kind, wanted.sis_id, name, value)).encode()).hexdigest()[:32]


def inherited(wanted: WantedObject, seen: ShownObject, known: Known, sis_id: str) -> Mapping[Attribute, str]:
    """What is still as we wrote it, as fingerprints of the same account under another id."""
    heir = replace(wanted, sis_id=sis_id)
    ours = {name: value for name, value in seen.values.items() if known.confirmed.get(name) == fingerprint(wanted, name, value)}
    return {name: fingerprint(heir, name, value) for name, value in ours.items()}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to record about one attempt."""

    state: State
    reason: str | None = None
    delay_seconds: float | None = None
    """Until it is looked at again; None: only an event or another policy brings it back."""
    counts: bool = False
    """As one more attempt in a row."""
    late: bool = False
    """A call may still land: settled is only what is seen after that."""
    exists: bool = False
    """The LMS has it: whoever waits for it can go on."""
    lms_id: str | None = None
    origin: Origin | None = None
    confirmed: Mapping[Attribute, str] = field(default_factory=dict)
    """To be added to what the ledger knows."""
    kept: tuple[Attribute, ...] = ()
    making: bool = False
    waits: tuple[ObjectKind, str] | None = None
    did: str | None = None
    """For the history: ``made``, ``changed``, ``refused``; None for what is not worth a line."""


def seen_so(wanted: WantedObject, seen: ShownObject, nothing: Nothing, known: Known) -> Verdict:
    """Nothing is left to do, as a read shows."""
    origin: Origin = "ours" if known.making else known.origin or "found"
    doubtful = known.making or known.suspect
    agreed = {name: value for name, value in _fingerprints(wanted, seen).items() if doubtful or name in known.confirmed}
    return _there(seen, origin, agreed, nothing, known)


def not_sent(known: Known) -> Verdict:
    """The attempt ended before its call."""
    return Verdict("pending", delay_seconds=_NOT_SENT_SECONDS, making=known.making)


def react(wish: Wish, step: Make | Change | None, outcome: ObjectOutcome, known: Known, random: float) -> Verdict:  # noqa: PLR0911
    """What the outcome of a call means, of a read without a `step`; `random` in [0, 1) spreads retries."""
    failures = known.attempts + 1
    later = FAULT.delay(failures, random)
    making = known.making or isinstance(step, Make)
    late = step is not None
    match outcome:
        case ShownObject():
            return _done(wish, step, outcome, known, later) if step else seen_so(wish.wanted, outcome, Nothing(), known)
        case NoParent(kind):
            inside = wish.wanted.inside or ""
            # Another feed may make it, which tells nobody.
            delay = PROBE.delay(failures, random)
            return Verdict("waiting", f"no_{kind}", delay, counts=True, waits=(kind, inside), making=known.making)
        case Throttled() | NoPermission(whole_token=True):
            return not_sent(known)
        case NoPermission():
            return Verdict("retrying", "permission", PERMISSION.delay(failures, random), counts=True, making=known.making)
        case Unknown(code):
            delay = 0.0 if failures == 1 else later
            return Verdict("retrying", f"unknown:{code}", delay, counts=True, late=late, making=making)
        case ServerFault(code) | WrongShape(code):
            return Verdict("retrying", f"{outcome.label}:{code}", later, counts=True, late=late, making=making)
        case IdentityMismatch():
            if failures < _MISMATCHES_BEFORE_REFUSED:
                return Verdict("retrying", outcome.label, later, counts=True, late=late, making=making)
            return Verdict("refused", outcome.label, REFUSED_SECONDS, counts=True, did="refused")
        case Refused(code) if known.doubt or (isinstance(step, Make) and failures == 1):
            # Perhaps because of what was made since the look, by an earlier call of ours or by another feed.
            return Verdict("retrying", f"refused:{code}", later, counts=True, making=known.making)
        case Refused(code):
            return Verdict("refused", f"refused:{code}", REFUSED_SECONDS, counts=True, did="refused")
        case Concluded() | NotThere():
            return Verdict("refused", outcome.label, REFUSED_SECONDS, counts=True, did="refused")
        case _ as never:
            assert_never(never)


def _done(wish: Wish, step: Make | Change, shown: ShownObject, known: Known, later: float) -> Verdict:
    """The answer shows how far it went."""
    wanted = wish.wanted
    if isinstance(step, Make):
        return _there(shown, "ours", _fingerprints(wanted, shown), Nothing(), known, did="made")
    origin = known.origin or "found"
    written = {name: value for name, value in _fingerprints(wanted, shown).items() if name in step.attributes}
    if not written and not step.gently:
        # The LMS said yes and did nothing; asking again at once would say yes again.
        return Verdict("retrying", "no_effect", later, counts=True, exists=True, lms_id=shown.lms_id, origin=origin)
    rest = next_step(wish, shown, replace(known, confirmed={**known.confirmed, **written}))
    did = "changed" if written else None
    if isinstance(rest, Change) and not (step.gently and rest.gently):
        return Verdict("pending", delay_seconds=0.0, exists=True, lms_id=shown.lms_id, origin=origin, confirmed=written, did=did)
    kept = tuple(sorted(rest.attributes)) if isinstance(rest, Change) else rest.kept if isinstance(rest, Nothing) else ()
    return _there(shown, origin, written, Nothing(kept), known, did)


def _there(
    shown: ShownObject, origin: Origin, written: Mapping[Attribute, str], nothing: Nothing, known: Known, did: str | None = None
) -> Verdict:
    return Verdict(
        state="suspect" if known.doubt else "settled",
        exists=True,
        lms_id=shown.lms_id,
        origin=origin,
        confirmed=written,
        kept=nothing.kept,
        did=did,
    )


def _fingerprints(wanted: WantedObject, shown: ShownObject) -> dict[Attribute, str]:
    """Of what is as wanted."""
    as_wanted = [(name, value) for name, value in wanted.values.items() if shown.values.get(name) == value]
    return {name: fingerprint(wanted, name, value) for name, value in as_wanted}
