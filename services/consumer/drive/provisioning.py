"""Beside the work of one lease: makes what seats wait for and keeps it as the SIS has it, at a pace that leaves the token to the
work. Parents before children, by themselves: what has to be made in something that is missing waits for that."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

import structlog

from schemas.keys import EntityKey
from services.consumer.drive.backoff import FAULT
from services.consumer.drive.caller import Caller
from services.consumer.drive.lease import Lease
from services.consumer.drive.owner import Owner, ledger_may_be_away
from services.consumer.drive.pacing import Gate
from services.consumer.drive.probing import Prober
from services.consumer.drive.reactions import NotSent
from services.consumer.drive.settings import DriveSettings, send_window_seconds, suspect_seconds
from services.consumer.ledger import writing
from services.consumer.ledger.policies import ActivePolicy, Policies
from services.consumer.ledger.writing import Switch
from services.consumer.nouns import MissingKind, ObjectKind
from services.consumer.policy.model import Policy
from services.consumer.provision import queue, shadowing, suspending, taking_up, wanting
from services.consumer.provision.queue import Due, Row
from services.consumer.provision.shadowing import Place
from services.consumer.provision.steps import (
    REFUSED_SECONDS,
    Change,
    Make,
    Nothing,
    Verdict,
    inherited,
    next_step,
    not_sent,
    react,
    seen_so,
)
from services.consumer.provision.wanting import Circle, Moved, Told, Untold, Unwanted, Wish
from services.consumer.targets.objects import (
    Attribute,
    NoObject,
    NoParent,
    ObjectOutcome,
    ObjectTarget,
    ShownObject,
    WantedObject,
)
from services.kit.failpoints import failpoint
from services.kit.postgres import AWAY, Connection

log = structlog.get_logger()

_EVERY_SECONDS = 0.5
_SHARE = 0.2
"""Of the token's calls in flight; the others are left to the seats that can be worked on."""
_RELEASE_EVERY_SECONDS = 5.0
"""Suspensions that are held are counted again after this."""
_MERGE_SECONDS = 2.0
"""Who waits for the account of another id looks again after this."""
_REKEY = Change(frozenset(), gently=False)
"""The step of a merge: no attribute of the object changes."""
_MISSING: Mapping[ObjectKind, MissingKind] = {"person": "user", "section": "section"}
"""What seats that wait for it call an object."""


class Provisioning:
    """Runs beside the work of one lease. Each attempt reads an object and takes at most one step. Objects that somebody waits for
    and all others take turns, so that a hundred thousand new names do not delay the section of the one who enrolls now."""

    def __init__(
        self,
        objects: ObjectTarget,
        caller: Caller,
        gate: Gate,
        keeping: Owner,
        policies: Policies,
        settings: DriveSettings,
        prober: Prober,
    ) -> None:
        """`prober` wakes the seats that wait for what was made."""
        self._objects = objects
        self._caller = caller
        self._gate = gate
        self._keeping = keeping
        self._policies = policies
        self._suspect_seconds = suspect_seconds(settings)
        self._window = send_window_seconds(settings)
        self._deadline_seconds = self._window + settings.call_timeout_seconds
        self._prober = prober
        self._versions: dict[str, int] | None = None
        """Of the policies that decided in the last round."""
        self._switches: list[Switch] | None = None
        """What was said in the last round about which terms are live."""
        self._coming_out: Place | None = None
        self._awaited = False
        self._release_at = 0.0

    async def run(self, lease: Lease) -> None:
        """Until cancelled."""
        while True:
            worked = 0
            try:
                with ledger_may_be_away(lease.target, "objects"):
                    worked = await self._some(lease)
            except Exception as error:  # a defect of ours: objects stay as they are, everything else goes on
                log.error("objects_failed", target=lease.target, exc_info=error)
            await asyncio.sleep(0 if worked else _EVERY_SECONDS)

    async def _some(self, lease: Lease) -> int:
        """Take up what is missed, and work on a few objects at once; how many."""
        active = await self._keeping.run(self._policies.active)
        await self._follow_the_policy(lease, active)
        await self._follow_the_switches(lease)
        await self._release_held(lease, active)
        kinds = self._objects.kinds & frozenset().union(*(one.policy.provision.kinds for one in active.values()))
        if kinds:
            await self._keeping.run(lambda it: taking_up.what_is_missed(it, lease.target, self._policies, kinds))
        capacity = self._gate.capacity()
        if capacity == 0:
            return 0
        limit = max(1, int(capacity * _SHARE))
        self._awaited = not self._awaited
        first = await self._due(lease, limit, awaited=self._awaited)
        due = first if first.rows else await self._due(lease, limit, awaited=not self._awaited)
        ended = await asyncio.gather(*(self._attempt(lease, row, active) for row in due.rows), return_exceptions=True)
        for failure in filter(None, ended):  # not before all have ended: none of them may be picked a second time meanwhile
            raise failure
        return len(due.rows) + due.in_shadow

    async def _due(self, lease: Lease, limit: int, *, awaited: bool) -> Due:
        doubt = self._suspect_seconds
        return await self._keeping.run(lambda it: queue.due(it, lease.target, limit, doubt, awaited=awaited))

    async def _follow_the_policy(self, lease: Lease, active: Mapping[str, ActivePolicy]) -> None:
        versions = {tenant: one.version for tenant, one in active.items()}
        if versions != self._versions:
            await self._keeping.run(lambda it: taking_up.reconsider(it, lease.target))
            self._versions = versions

    async def _follow_the_switches(self, lease: Lease) -> None:
        switches = await self._keeping.run(lambda it: writing.listed(it, lease.target))
        if switches != self._switches:
            self._switches, self._coming_out = switches, Place()
        if (after := self._coming_out) is not None:
            self._coming_out = await self._keeping.run(lambda it: shadowing.come_out(it, lease.target, after))

    async def _release_held(self, lease: Lease, active: Mapping[str, ActivePolicy]) -> None:
        """The feed may have the people again, or the day is over."""
        if time.monotonic() >= self._release_at:
            rules = {tenant: one.policy.provision.people for tenant, one in active.items()}
            most = {tenant: people.most_suspended for tenant, people in rules.items() if people is not None}
            await self._keeping.run(lambda it: suspending.release(it, lease.target, most))
            self._release_at = time.monotonic() + _RELEASE_EVERY_SECONDS

    async def _attempt(self, lease: Lease, row: Row, active: Mapping[str, ActivePolicy]) -> None:
        try:
            known = active.get(row.subject.tenant)
            await self._one(lease, row, known.policy if known else None)
        except AWAY:
            raise
        except Exception as error:  # a defect of ours in one object; the others go on
            log.error("object_failed", target=lease.target, kind=row.subject.kind, exc_info=error)
            delay = FAULT.delay(row.known.attempts + 1, random.random())  # noqa: S311
            await self._record(lease, row, Verdict("retrying", "defect", delay, counts=True, making=row.known.making))

    async def _one(self, lease: Lease, row: Row, policy: Policy | None) -> None:
        if policy is not None:
            row = await self._spoken_for(row, policy)
        told = await self._keeping.run(lambda it: queue.told(it, row.subject))
        row = row._replace(subject=wanting.known_as(row.subject, told))
        wish = wanting.want(row.subject, told, policy) if policy else Unwanted("off")
        if row.subject.kind not in self._objects.kinds:
            wish = Unwanted("not_supported")
        if isinstance(wish, Untold):
            verdict = Verdict("waiting", f"untold:{wish.lacks.kind}", queue.UNTOLD_SECONDS)
            await self._record(lease, row, verdict, lacks=wish.lacks)
        elif isinstance(wish, Unwanted):
            await self._leave(lease, row, wish, told)
        elif isinstance(wish, Circle):
            verdict = Verdict("refused", "merged_in_a_circle", REFUSED_SECONDS, did="refused")
            await self._record(lease, row, verdict, lacks=wish.next)
        elif isinstance(wish, Moved):
            await self._move(lease, row, wish)
        else:
            await self._work(lease, row, wish, told, policy)

    async def _spoken_for(self, row: Row, policy: Policy) -> Row:
        """Of a section that combined classes share, as the one of them that says what it is."""
        classes = policy.combined_in(row.subject.tenant, row.subject.object) if row.subject.kind == "section" else []
        if not classes:
            return row
        told = await self._keeping.run(lambda it: queue.sections(it, row.subject.tenant, classes))
        speaker = wanting.speaker(classes, told, patient=row.young)
        return row._replace(subject=row.subject._replace(key=speaker, section=speaker))

    async def _leave(self, lease: Lease, row: Row, unwanted: Unwanted, told: Told) -> None:
        """Neither made nor changed. What was never there is forgotten unless somebody waits for it, perhaps for another class."""
        if row.looked_at:
            await self._record(lease, row, Verdict("settled", unwanted.why))
        elif await self._keeping.run(lambda it: queue.drop_unneeded(it, lease.target, row)):
            return
        elif not wanting.is_gone(told.section):
            await self._record(lease, row, Verdict("waiting", unwanted.why))
        elif not await self._keeping.run(lambda it: queue.stand_in(it, lease.target, row)):
            await self._record(lease, row, Verdict("waiting", unwanted.why, queue.ANOTHER_CLASS_SECONDS))

    async def _work(self, lease: Lease, row: Row, wish: Wish, told: Told, policy: Policy | None) -> None:
        seen = await self._caller.find(self._objects, wish.wanted)
        if isinstance(seen, NoObject):
            await self._make(lease, row, wish, told, policy)
        elif isinstance(seen, ShownObject):
            await self._keep(lease, row, wish, seen, policy)
        else:
            await self._record(lease, row, self._judged(wish, None, seen, row))

    async def _make(self, lease: Lease, row: Row, wish: Wish, told: Told, policy: Policy | None) -> None:
        """The LMS does not have it."""
        if wish.unmade is not None:
            await self._leave(lease, row, wish.unmade, told)
            return
        if await self._is_not_to_be_made(lease, row):
            return
        outcome = await self._carried_out(lease, row, "make", wish.wanted, partial(self._objects.make, wish.wanted))
        if isinstance(outcome, NoParent) and policy is not None:
            await self._make_room(lease, row, wish, outcome, told, policy)
        await self._record(lease, row, self._judged(wish, Make(), outcome, row))

    async def _keep(self, lease: Lease, row: Row, wish: Wish, seen: ShownObject, policy: Policy | None) -> None:
        """The LMS has it: what of it is ours to change is changed."""
        step = next_step(wish, seen, row.known)
        if isinstance(step, Nothing):
            # After a lost answer it may have been we who suspended them.
            suspended = wish.suspends and row.known.suspect
            await self._record(lease, row, seen_so(wish.wanted, seen, step, row.known), suspended=suspended)
            return
        if step.suspends(wish) and await self._too_many(lease, row, policy):
            await self._record(lease, row, Verdict("held", "too_many_suspensions"))
            return
        operation = partial(self._objects.change, wish.wanted, seen, step.attributes, gently=step.gently)
        outcome = await self._carried_out(lease, row, "change", wish.wanted, operation)
        verdict = self._judged(wish, step, outcome, row)
        suspended = step.suspends(wish) and verdict.state in ("settled", "suspect")
        await self._record(lease, row, verdict, suspended=suspended)

    async def _too_many(self, lease: Lease, row: Row, policy: Policy | None) -> bool:
        """Whether more people of the tenant are to be suspended within a day than go without a person's word."""
        rules = policy.provision.people if policy else None
        tenant = row.subject.tenant
        return rules is None or (
            await self._keeping.run(lambda it: suspending.too_many(it, lease.target, tenant, rules.most_suspended))
        )

    async def _is_not_to_be_made(self, lease: Lease, row: Row) -> bool:
        """The account of another id is to become theirs, or nobody waits for it any more."""
        sis_id = row.subject.object
        if row.subject.kind == "person" and await self._keeping.run(lambda it: queue.is_heir(it, lease.target, sis_id)):
            await self._record(lease, row, Verdict("waiting", "merge", _MERGE_SECONDS))
            return True
        return await self._keeping.run(lambda it: queue.drop_unneeded(it, lease.target, row))

    async def _move(self, lease: Lease, row: Row, moved: Moved) -> None:
        """Have nobody found under the old id any more; then what the LMS has of its seats is the other person's."""
        # What we wrote is looked for, too: as far as it stands, it is ours under the new id as well.
        account = replace(moved.wanted, values=dict.fromkeys(row.known.confirmed, ""))
        seen = await self._caller.find(self._objects, account)
        if isinstance(seen, ShownObject):
            obstacle = await self._rekeyed(lease, row, moved, seen)
        elif isinstance(seen, NoObject):
            obstacle = None
        else:
            obstacle = self._judged(Wish(moved.wanted), None, seen, row)
        if obstacle is None:
            written = inherited(account, seen, row.known, moved.heir.object) if isinstance(seen, ShownObject) else {}
            await self._handed_over(lease, row, moved, written)
        else:
            await self._record(lease, row, obstacle)

    async def _rekeyed(self, lease: Lease, row: Row, moved: Moved, seen: ShownObject) -> Verdict | None:
        """Give the account the new id; where it has that one already, take the old one off it. Returns what stands in the way.

        Accounts that are nobody's business of ours stay as they are. Then the removals for the old id wait only where they would
        take away what the new one has: in the same account.
        """
        heir = await self._caller.find(self._objects, WantedObject("person", moved.heir.object, {}))
        if not isinstance(heir, ShownObject | NoObject):
            return self._judged(Wish(moved.wanted), None, heir, row)
        same = isinstance(heir, ShownObject) and heir.lms_id == seen.lms_id
        if not moved.ours:
            return Verdict("waiting", "off", REFUSED_SECONDS) if same else Verdict("settled", "off")
        if isinstance(heir, ShownObject) and not same:
            return Verdict("refused", "two_accounts", REFUSED_SECONDS, did="refused")
        new_id = "" if same else moved.heir.object
        operation = partial(self._objects.rekey, moved.wanted, seen, new_id)
        outcome = await self._carried_out(lease, row, "change", moved.wanted, operation)
        return None if isinstance(outcome, ShownObject) else self._judged(Wish(moved.wanted), _REKEY, outcome, row)

    async def _handed_over(self, lease: Lease, row: Row, moved: Moved, written: Mapping[Attribute, str]) -> None:
        if not await self._keeping.run(lambda it: queue.hand_over(it, lease.target, row)):
            await self._record(lease, row, Verdict("retrying", "seats_under_way", _MERGE_SECONDS))
            return
        if moved.ours:
            await self._keeping.run(lambda it: taking_up.add(it, lease.target, [moved.heir]))
            await self._keeping.run(lambda it: queue.inherit(it, lease.target, row, moved.heir.object, written))
        await self._record(lease, row, Verdict("settled", "merged", did="moved"))
        await self._prober.appeared("user", moved.heir.object)

    async def _carried_out(
        self, lease: Lease, row: Row, call: str, wanted: WantedObject, operation: Callable[[], Awaitable[ObjectOutcome]]
    ) -> ObjectOutcome | NotSent:
        """The call, once the ledger says that it may be under way."""
        send_by = time.monotonic() + self._window
        begun = await self._keeping.run(lambda it: queue.begin(it, lease, row, call, self._deadline_seconds))
        if not begun:
            return NotSent()
        failpoint("consumer.after_object_intent")
        return await self._caller.move(f"{call}_{wanted.kind}", wanted, send_by, operation)

    @staticmethod
    def _judged(wish: Wish, step: Make | Change | None, outcome: ObjectOutcome | NotSent, row: Row) -> Verdict:
        if isinstance(outcome, NotSent):
            return not_sent(row.known)
        return react(wish, step, outcome, row.known, random.random())  # noqa: S311

    async def _make_room(self, lease: Lease, row: Row, wish: Wish, missing: NoParent, told: Told, policy: Policy) -> None:
        """Have the term or course made first, where that is ours to do; otherwise it is waited for."""
        if wish.wanted.inside is not None and missing.kind in policy.provision.kinds & self._objects.kinds:
            parent = wanting.parent(row.subject, missing.kind, wish.wanted.inside, told)
            await self._keeping.run(lambda it: taking_up.add(it, lease.target, [parent]))

    async def _record(
        self, lease: Lease, row: Row, verdict: Verdict, *, lacks: EntityKey | None = None, suspended: bool = False
    ) -> None:
        def write(connection: Connection) -> bool:
            doubt = self._suspect_seconds
            return queue.record(connection, lease, row, verdict, doubt, lacks=lacks, suspended=suspended)

        recorded = await self._keeping.run(write)
        if not recorded:
            return
        if verdict.did is not None:
            log.info("object", target=lease.target, kind=row.subject.kind, outcome=verdict.did, reason=verdict.reason)
        if verdict.exists:
            await self._tell_who_waits(lease, row)

    async def _tell_who_waits(self, lease: Lease, row: Row) -> None:
        kind, sis_id = row.subject.kind, row.subject.object
        await self._keeping.run(lambda it: queue.wake_those_inside(it, lease.target, kind, sis_id))
        if kind in _MISSING:
            await self._prober.appeared(_MISSING[kind], sis_id)
