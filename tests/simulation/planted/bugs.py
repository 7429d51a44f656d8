"""The bugs: reliability's sixteen, the fifteen of the design, three of the rosters, three of the policy."""

from __future__ import annotations

from services.consumer.api.desk import Desk
from services.consumer.drive import reactions, takeover, waiting
from services.consumer.drive.caller import Caller
from services.consumer.drive.driver import Driver
from services.consumer.intake.batches import Batches
from services.consumer.ledger import replay_batch, starting, storing
from services.consumer.ledger.writing import is_live
from services.consumer.policy import courses, decide, facts
from services.consumer.rosters import comparing
from services.consumer.targets.canvas.client import CanvasClient
from services.consumer.targets.canvas.target import CanvasTarget
from services.kit.kafka import KafkaSettings
from services.publisher.mirror import settled
from services.publisher.mirror.group import Groups
from services.publisher.mirror.store import Store
from services.publisher.mirror.writer import MirrorWriter
from tests.simulation.planted import Edit, Plant, Statement

_REMOVALS = (("limit_removals", 20), ("fill_class", 40), ("empty_class", 24), ("wait", 20))
_NO_IMPORTS = "the import lane does not exist yet"
_FORGET_HOLDS = """    connection.execute("update work set state = 'pending', cleared = seat.decision from seat "
                       "where work.state = 'held' and (seat.target, seat.seat) = (work.target, work.seat)")
"""
_KEEP_OLD_EVENT = """    for one in arrivals:
        connection.execute("delete from entity where tenant = %s and kind = %s and key = %s and version > %s",
                           [*one.event.entity_key, one.event.version])
    newest = _newest(connection, arrivals)"""
_APPLY_OLD_EVENT = """    for one in arrivals:
        if one.event.entity_key.kind == "enrollment":
            connection.execute(
                "with old as (update seat set desired = %s, applied = 'unknown', decision = decision + 1 where (target, seat) in "
                "(select target, seat from entitlement where (tenant, kind, key) = (%s, %s, %s)) returning *) insert into work "
                "(target, seat, tenant, person, course, state, priority, next_at) select target, seat, tenant, person, course, "
                "'pending', 2, clock_timestamp() from old on conflict do nothing",
                ["active" if one.event.status == "enrolled" else "deleted", *one.event.entity_key])
    standings = reopening.standings(connection, current)"""

PLANTS = (
    # reliability's sixteen
    Plant(
        "commit before apply",
        "reliability 1",
        (
            Edit(
                storing,
                "store",
                "    with connection.transaction():\n        recovery.check_session(connection, began_with)\n",
                "    with connection.transaction():\n        offsets.advance(connection, batch.spans)\n"
                "    with connection.transaction():\n        recovery.check_session(connection, began_with)\n",
            ),
        ),
        rules=(("database_faults", 6), ("kill", 4), ("interleaving", 4)),
    ),
    Plant(
        "skip version compare",
        "reliability 2",
        (Statement("where entity.version < excluded.version", "where entity.version <> excluded.version"),),
        rules=(("flap", 10), ("log_faults", 6)),
    ),
    Plant(
        "treat any 200 as success",
        "reliability 3",
        (
            Edit(
                CanvasTarget,
                "write",
                "    operation = Operation(self._timeout)\n",
                "    operation = Operation(self._timeout)\n"
                "    answer = await self._step(seat, wanted, seen, operation)\n"
                "    if isinstance(answer, (Done, WrongShape, IdentityMismatch)):\n"
                "        return Done(Observation(wanted, seen.lms_enrollment, seen.lms_course))\n"
                "    return answer\n",
            ),
        ),
        rules=(("canvas_faults", 20),),
    ),
    Plant("treat a half-applied import as success", "reliability 4", not_built=_NO_IMPORTS),
    Plant(
        "retry a change of unknown outcome without a read",
        "reliability 5",
        (Edit(reactions, "_reaction", '"unknown" if wrote else None', "None"),),
        rules=(("canvas_faults", 20),),
    ),
    Plant(
        "resend old bytes on redrive",
        "reliability 6",
        (Edit(replay_batch, "replay", "    standings = reopening.standings(connection, current)", _APPLY_OLD_EVENT),),
        rules=(("operate", 14), ("flap", 10)),
    ),
    Plant(
        "guard counter per process",
        "reliability 7",
        (
            Statement(
                "at > clock_timestamp() - interval '24 hours' and how in",
                "at > (select to_timestamp(epoch / 1e6) from lease where lease.target = removal.target) and how in",
            ),
        ),
        rules=(("limit_removals", 80), ("fill_class", 160), ("leave_class", 400), ("stop", 120), ("wait", 160)),
    ),
    Plant(
        "guard counts messages, not effects",
        "reliability 8",
        (Statement("count(*)::int, array_agg(seat)", "1, array_agg(seat)"),),
        rules=_REMOVALS,
    ),
    Plant(
        "pass a record before its dead letter is written",
        "reliability 9",
        (
            Edit(
                Batches,
                "_without_letter",
                "return {letter.at for letter in letters} - self._letters.written(letters, self._letter_wait)",
                "self._letters.written(letters, self._letter_wait)\n    return set()",
            ),
        ),
        rules=(("poison", 14), ("log_faults", 14), ("log_down", 6)),
    ),
    Plant(
        "auto.offset.reset=latest",
        "reliability 10",
        (Edit(starting, "judge", 'return Start(kafka.low, "recreated"', 'return Start(kafka.high, "recreated"'),),
        rules=(("log_lost", 20), ("change", 20)),
    ),
    Plant(
        "in flight > 1 without idempotence",
        "reliability 11",
        (Edit(KafkaSettings, "producer", '"enable.idempotence": True', '"enable.idempotence": False'),),
    ),
    Plant(
        "age from the wall clock",
        "reliability 12",
        (Edit(Driver, "__init__", "self._clock = time.monotonic", "self._clock = time.time"),),
        rules=(("clock_jump", 14), ("pause", 6)),
    ),
    Plant(
        "hold lost on restart",
        "reliability 13",
        (
            Edit(
                takeover,
                "inherited",
                "    rows = ",
                _FORGET_HOLDS + "    rows = ",
            ),
        ),
        rules=(*_REMOVALS, ("kill", 20)),
    ),
    Plant(
        "audit after the commit, in another transaction",
        "reliability 14",
        (Edit(Desk, "_in_one_transaction", "            audit.record(", "        audit.record("),),
        rules=(("operate", 40), ("database_faults", 20)),
    ),
    Plant(
        "token sent to the next link's host",
        "reliability 15",
        (
            Edit(CanvasClient, "get_page", "not same_origin or ", ""),
            Edit(CanvasClient, "get_page", 'f"{parts.path}?{parts.query}"', "address"),
            Edit(CanvasClient, "_request", "else self._base + path", "else path if '//' in path else self._base + path"),
        ),
        rules=(("canvas_links", 14), ("audit", 30), ("kill", 4)),
    ),
    Plant(
        "lease ignored after a pause",
        "reliability 16",
        (
            Statement(
                "where target = %(target)s and owner = %(owner)s and epoch = %(epoch)s\n"
                "     and expires_at >= clock_timestamp() + %(deadline)s * interval '1 s'",
                "where target = %(target)s",
            ),
            Edit(Driver, "_open", "self._clock() + deadline > self._lease_valid_until", "False"),
            Edit(Caller, "_change", "if left < 0:", "if False:"),
        ),
        rules=(("pause", 12), ("kill_at_failpoint", 10)),
    ),
    # the design's fifteen
    Plant(
        "produce inside the transaction",
        "design 1",
        (
            Edit(
                Groups,
                "_commit",
                "committed = self._store",
                "self._store.early = self._on_commit\n            committed = self._store",
            ),
            Edit(
                Store,
                "transact",
                "committed = self._attempt(Tables(connection, floor), requests, emit=emit)",
                "committed = self._attempt(Tables(connection, floor), requests, emit=emit)\n"
                "                getattr(self, 'early', lambda rows: None)(committed.outbox)",
            ),
        ),
        rules=(("interleaving", 24), ("database_faults", 20), ("database_crash", 10)),
    ),
    Plant(
        "version from a sequence",
        "design 2",
        (
            Statement(
                "greatest(version + 1, floor + 1 + lead, (extract(epoch from clock_timestamp()) * 1000000)::bigint)",
                "version + 1",
            ),
        ),
        rules=(("backup", 6), ("restore", 8), ("empty_mirror", 6)),
    ),
    Plant(
        "start from the larger offset",
        "design 3",
        (
            Edit(
                starting,
                "judge",
                "return Start(stored, _loss(",
                "return Start(max(stored, kafka.committed or 0), _loss(",
            ),
        ),
        rules=(("backup", 8), ("restore", 12)),
    ),
    Plant("claim over a drop", "design 4", not_built=_NO_IMPORTS),
    Plant(
        "404 counted as done",
        "design 5",
        (
            Edit(
                CanvasTarget,
                "_remove",
                "return await self._row_elsewhere(seat, seen, operation)",
                "return Done(Observation(wanted, seen.lms_enrollment, seen.lms_course))",
            ),
        ),
        rules=(("crosslist", 14), ("flap", 10)),
    ),
    Plant(
        "lost wake-up of a waiting seat",
        "design 6",
        (
            Edit(waiting, "settle_waits", "again = at is not None and at > settlement.order.opened_at", "again = False"),
            Edit(
                waiting,
                "settle_waits",
                "connection.execute(_MARK_MISSING, [PROBE.first_seconds, kinds, names, target])",
                "pass",
            ),
            Edit(waiting, "asleep_in_vain", "    return [", "    return [] and ["),
        ),
        rules=(("opening", 40), ("canvas_slow", 20)),
    ),
    Plant(
        "policy by today",
        "design 7",
        (
            Edit(
                facts,
                "status_of",
                "    gone = ",
                "    if enrollment.status == 'dropped' and enrollment.effective_date and "
                "datetime.now().date() > enrollment.effective_date:\n        return 'withdrawn'\n    gone = ",
            ),
        ),
        rules=(("clock_jump", 14), ("flap", 10)),
    ),
    Plant(
        "lock the source row only",
        "design 8",
        (Statement("do update set version = e.version where false", "do nothing"),),
        rules=(("interleaving", 14), ("flap", 20)),
    ),
    Plant(
        "approve a hold that changed",
        "design 9",
        (Statement("and hold_number <= %(snapshot)s", "and %(snapshot)s > 0"),),
        rules=(
            ("limit_removals", 80),
            ("fill_class", 160),
            ("leave_class", 400),
            ("wait", 160),
            ("look_at_holds", 100),
            ("approve_holds", 100),
        ),
    ),
    Plant(
        "settle without looking at the current desired",
        "design 10",
        (
            Statement(
                "satisfied and suspect_until is null and fence is null and not must_verify as settled", "next = 'now' as settled"
            ),
        ),
        rules=(("flap", 20), ("canvas_faults", 6)),
    ),
    Plant(
        "replay decides from the old event",
        "design 11",
        (Edit(replay_batch, "replay", "    newest = _newest(connection, arrivals)", _KEEP_OLD_EVENT),),
        rules=(("operate", 14), ("flap", 10)),
    ),
    Plant(
        "unconditional offset store",
        "design 12",
        (Statement('and o."partition" = span."partition" and o.next >= span.first', 'and o."partition" = span."partition"'),),
        rules=(("backup", 8), ("restore", 14), ("rebalance", 8), ("pause", 8)),
    ),
    Plant(
        "read back once, then settled",
        "design 13",
        (Edit(reactions, "_reaction", "lost, touched=wrote, late=wrote)", "lost, touched=wrote)"),),
        rules=(("canvas_faults", 40), ("flap", 40), ("change", 20)),
    ),
    Plant(
        "old lease kept after a restore",
        "design 14",
        (
            Statement("delete from lease", "select from lease"),
            Statement("     and not exists (select from recovery where active and behind)\n     for share", "     for share"),
        ),
        rules=(("backup", 20), ("restore", 24), ("flap", 20)),
    ),
    Plant(
        "2xx by absence of an outbox row",
        "design 15",
        (
            Statement(
                "or s.applied_version <= e.published_version",
                "or not exists (select from outbox o where (o.tenant, o.kind, o.key) = (e.tenant, e.kind, e.key))",
            ),
            Edit(settled, "_shown", 'return "missing"', "continue"),
            # A publisher that goes on in another mirror than it has opened is what makes a row vanish under a request.
            Edit(MirrorWriter, "_connect", "database.sighting(connection) == self._sighting is not None", "True"),
        ),
        rules=(("empty_mirror", 10), ("restore", 10), ("backup", 8), ("log_faults", 14), ("change", 20)),
    ),
    Plant(
        "a shadow that writes",
        "rosters 1",
        (Statement(is_live("work.target", "work.term"), "true"), Statement(is_live("%(target)s", "hop.term"), "true")),
        rules=(("into_shadow", 10), ("flap", 10)),
    ),
    Plant(
        "a repair without a look",
        "rosters 2",
        (Statement("clock_timestamp(), true\n    from seat", "clock_timestamp(), false\n    from seat"),),
        rules=(("meddle", 20), ("compare", 20)),
    ),
    Plant(
        "a roster that is believed of what moved",
        "rosters 3",
        (Edit(comparing, "compare", "seat.moving or not", "not"),),
        rules=(("compare", 60), ("flap", 60), ("canvas_slow", 20), ("into_shadow", 30), ("go_live", 30)),
    ),
    Plant(
        "one course, active and inactive",
        "policy 1",
        (Edit(decide, "decide", 'policy.left_behind == "deleted"', "False"),),
        rules=(("change", 40),),
    ),
    Plant(
        "a laboratory that nobody leaves",
        "policy 2",
        (Edit(courses, "follow_primaries", "rule is None or", "True or"),),
        rules=(("change", 40),),
    ),
    Plant(
        "let in by a re-used number",
        "policy 3",
        (Statement("and section_course.reused_as is not null", "and false"),),
        rules=(("reuse_number", 30), ("change", 60)),
    ),
)
"""In the order of the lists."""

BY_NAME = {plant.name: plant for plant in PLANTS}
