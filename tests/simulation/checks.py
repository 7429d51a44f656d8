"""What must hold: online at every write and every answer, after every step, and in the end.

S-rules watch from outside (Canvas's write log, the log, committed rows); they never ask the product what it thinks.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

from schemas import codec
from schemas.codec import NewerEvent, UndecodableEvent
from schemas.events import AnyEvent, EnrollmentEvent
from schemas.keys import EntityKey
from services.consumer.ledger import assertions
from services.consumer.ledger.overrides import ADOPTER
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import seat_key
from services.publisher.mirror.nouns import row_key
from services.publisher.mirror.recovery import as_request
from services.sandbox.canvas.writelog import Attempt
from tests.simulation.guard import Guard
from tests.simulation.lms import SeatName, Sent
from tests.simulation.log import Entry
from tests.simulation.numbers import Numbers
from tests.simulation.rosters import Rosters
from tests.simulation.sis import Message
from tests.simulation.world import CALL_SECONDS, LATE_SECONDS, World


class Checks:
    """The checker of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.policies = Policies("canvas", swap_settle_seconds=0.5)
        self.confirmed: dict[SeatName, int] = {}
        """Per seat: the smallest place in the SIS's order that explains what Canvas was told so far."""
        self.newest: dict[EntityKey, int] = {}
        """The highest version in the log."""
        self.hashes: dict[tuple[EntityKey, int], str] = {}
        self.late_landings = 0
        self.guard = Guard(world)
        self.rosters = Rosters(world)
        self.numbers = Numbers(world)
        self.writes: Counter[SeatName] = Counter()
        self._seen_violations = 0
        self._ledger_versions: dict[EntityKey, int] = {}
        world.log.on_append = self.on_append
        world.lms.on_write = self.on_write
        world.lms.on_send = self.on_send
        world.lms.know = lambda seat: self.confirmed.get(seat, 0)
        world.on_accepted(self.on_accepted)

    # --- online ---

    def on_append(self, topic: str, _partition: int, _offset: int, entry: Entry) -> None:
        """Nothing is in the log that the mirror has not committed (no ghosts), and no version says two things."""
        world = self.world
        kind = world.topics.kind(topic)
        if kind is None:
            return
        try:
            event: AnyEvent = codec.decode(kind, entry.value)
        except (UndecodableEvent, NewerEvent):
            return  # put there by a fault
        key = event.entity_key
        known = self.hashes.setdefault((key, event.version), event.content_hash)
        if known != event.content_hash:
            world.violated("version", f"version {event.version} of {key.kind} has two contents")
        self.newest[key] = max(self.newest.get(key, 0), event.version)
        if world.hurt_mirror:
            return  # a mirror that was restored meanwhile cannot know what its former self had committed
        found = world.databases.rows("select version from mirror.entity where (tenant, kind, key) = (%s, %s, %s)", *key)
        if not found or found[0][0] < event.version:
            world.violated("ghost", f"the log has version {event.version} of {key.kind} {key.key}, the mirror has {found}")

    def on_accepted(self, message: Message) -> None:
        """I1 and R2: what was answered with 2xx is in the mirror, and the log holds a version that contains it."""
        for change in message.changes:
            key = row_key(change)
            found = self.world.databases.rows(
                """select s.entity_kind, s.entity_key, s.applied_version, (s.positions->>%s)::bigint
                     from mirror.source_row s where (s.tenant, s.record, s.key) = (%s, %s, %s)""",
                f"{change.order.channel}\n{change.order.incarnation}",
                *key,
            )
            if not found:
                if not change.deleted:
                    self.world.violated("I1", f"accepted, but not in the mirror: {change.record} {change.key}")
                continue
            kind, name, applied, position = found[0]
            if change.order.position is not None and (position is None or position < change.order.position):
                self.world.violated("I1", f"accepted, but the mirror is older: {change.record} {change.key}")
            if change.order.position is None or position != change.order.position:
                continue  # a newer change has taken its place, and is perhaps on its way
            entity = EntityKey(change.tenant, kind, name)
            if self.newest.get(entity, 0) < applied:
                self.world.violated("I1", f"accepted, but not in the log: {kind} {name} version {applied}")

    def on_send(self, sent: Sent) -> None:
        """Every change on its way is covered by a committed intent that is still good for it."""
        self.guard.on_send(sent)
        self.rosters.on_send(sent)
        self.numbers.on_send(sent)
        world = self.world
        if sent.seat is None or world.scheduler.now - world.hurt_ledger_at < CALL_SECONDS + 1:
            return
        # Recovery mode voids the lease under whoever is about to send; that is why it makes every seat suspect.
        since = world.databases.rows(
            "select extract(epoch from since)::float8 from ledger.recovery where reason <> 'first start'"
        )
        if since and self._ledger_clock() - since[0][0] < CALL_SECONDS + 1:
            return
        found = world.databases.rows(
            """select extract(epoch from i.deadline)::float8, i.owner = l.owner and i.epoch = l.epoch
                 from ledger.intent i left join ledger.lease l using (target)
                where i.seat = %s and i.closed_at is null and i.call = 'write'""",
            seat_key(sent.seat.section, sent.seat.user, sent.seat.role),
        )
        if not found:
            world.violated("intent", f"a change was sent without an open intent: {sent.seat}")
        elif all(deadline < self._ledger_clock() for deadline, _ in found):
            world.violated("intent", f"a change was sent after its intent's deadline: {sent.seat}")
        elif not any(held for _, held in found):
            world.violated("lease", f"a change was sent by a driver without the lease: {sent.seat}")

    def _ledger_clock(self) -> float:
        from tests.simulation.database import EPOCH_SECONDS

        return EPOCH_SECONDS + self.world.scheduler.now + self.world.databases.wall_offset["ledger"]

    def on_write(self, attempt: Attempt, seat: SeatName, sent: Sent) -> None:
        """I3 and I4: what Canvas is told is a subsequence of what the SIS said, in its order."""
        world = self.world
        world.trace.add(
            world.scheduler.now, f"CANVAS {attempt.before} -> {attempt.after} {seat} by {sent.process.name}, sent {sent.at:.4f}"
        )
        self.writes[seat] += 1
        self.rosters.on_write(seat, str(attempt.after))
        if not world.sis.promises_order(seat):
            return
        states = world.sis.history.get(seat, ["deleted"])
        state = str(attempt.after)
        at_sending = _first(states, state, int(sent.known))
        if at_sending is None:
            world.violated("I3", f"{seat} became {state}, which is older than what was confirmed before it was sent; {states}")
            return
        place = _first(states, state, self.confirmed.get(seat, 0))
        if place is None:
            late = world.scheduler.now - sent.at
            if late > LATE_SECONDS + CALL_SECONDS:
                world.violated("I3", f"{seat} became {state} again, {late:.1f} s after it was sent")
            self.late_landings += 1
            return
        self.confirmed[seat] = place

    # --- after every step ---

    def after_step(self) -> None:
        """All that must hold whenever nobody is in the middle of something."""
        world = self.world
        for violation in world.lms.canvas.violations[self._seen_violations :]:
            world.violated("I5", f"Canvas: {violation.rule}: {violation.detail}")
        self._seen_violations = len(world.lms.canvas.violations)
        with world.databases.as_ledger() as connection:
            for text in assertions.violations(connection, self.policies):
                world.violated("ledger", text)
        self.numbers.look()
        self.rosters.after_step()
        self._versions_never_go_back()
        self._offsets_pass_nothing()
        self._every_dead_letter_is_written()
        self._every_operation_is_audited()
        for configuration in world.log.producer_configurations:
            if configuration.get("enable.idempotence") is not True or configuration.get("acks") != "all":
                world.violated("producer", "events are handed over without idempotence or without all acknowledgements")
        world.log.producer_configurations.clear()

    def _versions_never_go_back(self) -> None:
        """I12, and the mirror's own rules."""
        world = self.world
        rows = world.databases.rows("select tenant, kind, key, version from ledger.entity")
        current = {EntityKey(*row[:3]): row[3] for row in rows}
        for key, version in self._ledger_versions.items():
            if current.get(key, 0) < version:
                world.violated("I12", f"the ledger's {key.kind} {key.key} went from {version} to {current.get(key)}")
        self._ledger_versions = current
        wrong = world.databases.rows("select kind, key from mirror.entity where published_version > version")
        for kind, key in wrong:
            world.violated("mirror", f"published is ahead of issued: {kind} {key}")

    def _offsets_pass_nothing(self) -> None:
        """I7: whatever lies before the ledger's offset is in the ledger, or newer than it; Kafka's commit never leads."""
        world = self.world
        stored = {
            (identity, partition): offset
            for identity, partition, offset in world.databases.rows(
                'select topic_id, "partition", next from ledger.intake_offset'
            )
        }
        aside = {
            (topic, partition, offset)
            for topic, partition, offset in world.databases.rows(
                """select topic, "partition", "offset" from ledger.history where what in ('undecodable', 'parked')"""
            )
        }
        versions = self._ledger_versions
        for name, topic in world.log.topics.items():
            kind = world.topics.kind(name)
            if kind is None:
                continue
            for number, partition in enumerate(topic.partitions):
                for offset in range(partition.low, min(stored.get((topic.identity, number), 0), partition.high)):
                    entry = partition.entries[offset]
                    try:
                        event = codec.decode(kind, entry.value)
                    except (UndecodableEvent, NewerEvent):
                        if (name, number, offset) not in aside:
                            world.violated("I7", f"the ledger is past an unreadable record: {name}/{number}@{offset}")
                        continue
                    if versions.get(event.entity_key, 0) < event.version:
                        world.violated("I7", f"the ledger is past {name}/{number}@{offset} and has not got it")
                committed = world.log.group("sim").committed.get((topic.identity, name, number))
                # A reader that does not know yet that its topic is another one commits its old place.
                excused = world.hurt_ledger_at > -1 or name in world.log.recreated
                if committed and not excused and committed[0] > stored.get((topic.identity, number), 0):
                    world.violated("I7", f"Kafka's commit leads the ledger: {name}/{number}")

    def _every_dead_letter_is_written(self) -> None:
        """I8: what the ledger has set aside lies in the dead-letter topic, with its bytes and its coordinates."""
        world = self.world
        letters: dict[tuple[str, int, int], bytes | None] = {}
        for name in world.log.topics:
            if name.startswith("dlq."):
                for entry in world.log.topics[name].partitions[0].entries:
                    headers = dict(entry.headers)
                    where = [headers[f"__connect.errors.{part}"].decode() for part in ("topic", "partition", "offset")]
                    letters[where[0], int(where[1]), int(where[2])] = entry.value
        rows = world.databases.rows("""select topic, "partition", "offset" from ledger.history where what = 'undecodable'""")
        for topic, partition, offset in rows:
            if (topic, partition, offset) not in letters:
                world.violated("I8", f"set aside, and in no dead letter: {topic}/{partition}@{offset}")
            elif (
                topic not in world.log.recreated
                and letters[topic, partition, offset] != world.log.topics[topic].partitions[partition].entries[offset].value
            ):
                world.violated("I8", f"the dead letter has other bytes: {topic}/{partition}@{offset}")

    def _every_operation_is_audited(self) -> None:
        """I10: each replay that an operator asked for has exactly one row in the audit."""
        rows = self.world.databases.rows(
            """select (select count(*) from ledger.replay where actor = 'operator'),
                      (select count(*) from ledger.audit where action = 'replay.create' and outcome = 'done')"""
        )
        if rows[0][0] != rows[0][1]:
            self.world.violated("I10", f"{rows[0][0]} replays, {rows[0][1]} audit rows")

    def ledger_was_restored(self) -> None:
        """Its former self's versions do not bind it."""
        self._ledger_versions = {}
        self.numbers.forget()

    # --- in the end ---

    def in_shadow(self) -> bool:
        """Whether nothing is written at all, so that nothing comes to rest."""
        return bool(self.world.databases.rows("select from ledger.writing where not live"))

    def unfinished(self) -> str | None:
        """What is still under way; None when everything has come to rest."""
        world = self.world
        rows = world.databases.rows
        waiting = self.not_taken_in()
        if waiting is not None:
            return waiting
        if rows("select from ledger.intent where closed_at is null limit 1"):
            return "open intents"
        work = rows("select state, reason, seat from ledger.work where state <> 'dead' order by seat")
        if work:
            return f"work: {work}"
        if rows("select from ledger.override where ended_at is null and actor <> %s limit 1", ADOPTER):
            return "overrides"  # an adoption ends when everything else has come to rest
        if rows("select from ledger.recovery where active"):
            return "recovery mode"
        return self.disagreement()

    def not_taken_in(self) -> str | None:
        """What the ledger has not got yet of all that the student system has said."""
        world = self.world
        rows = world.databases.rows
        waiting = [message.number for message in world.sis.messages if not message.delivered]
        if waiting:
            return f"messages not accepted: {waiting}"
        if rows("select from mirror.outbox where dead_reason is null limit 1"):
            return "outbox"
        stored = {
            (identity, number): offset
            for identity, number, offset in rows('select topic_id, "partition", next from ledger.intake_offset')
        }
        for name, topic in world.log.topics.items():
            if world.topics.kind(name) is None:
                continue
            for number, partition in enumerate(topic.partitions):
                if stored.get((topic.identity, number), -1 if name in world.log.recreated else 0) < partition.high:
                    return f"log {name}/{number}"
        return None

    def taken_in(self) -> bool:
        """Whether the ledger has all that the student system has said."""
        return self.not_taken_in() is None

    def mirror_has_everything(self) -> bool:
        """Whether the mirror knows every version that was ever in the log."""
        rows = self.world.databases.rows("select tenant, kind, key, version from mirror.entity")
        known = {EntityKey(*row[:3]): row[3] for row in rows}
        return all(known.get(key, 0) >= version for key, version in self.newest.items())

    def known_to_the_mirror_alone(self) -> set[tuple[str, str]]:
        """Rows that said nothing new when they were last accepted, so that the log has them older, and something else between.

        A mirror that forgets them takes what is between for the newest when it comes again.
        """
        world = self.world
        in_log: dict[tuple[str, str], int] = {}
        for name, topic in world.log.topics.items():
            kind = world.topics.kind(name)
            if kind is None:
                continue
            for entry in (entry for partition in topic.partitions for entry in partition.entries):
                with contextlib.suppress(UndecodableEvent, NewerEvent):
                    for change in as_request([codec.decode(kind, entry.value)]).changes:
                        row = (change.record, change.row_key)
                        in_log[row] = max(in_log.get(row, 0), change.order.position or 0)
        said = [
            (message, (change.record, change.row_key), change.order.position)
            for message in world.sis.messages
            for change in message.changes
            if change.order.position is not None
        ]
        accepted: dict[tuple[str, str], int] = {}
        for message, row, position in said:
            if message.delivered:
                accepted[row] = max(accepted.get(row, 0), position)
        return {row for _, row, position in said if in_log.get(row, 0) < position < accepted.get(row, 0)}

    def under_way(self) -> set[tuple[str, str]]:
        """Rows of which the student system has sent something and has heard nothing: their event may be on its way to the log.

        Of a mirror that is lost meanwhile it comes as a ghost, which the next one undoes until it gets the message again.
        """
        return {
            (change.record, change.row_key)
            for message in self.world.sis.messages
            for change in message.changes
            if message.attempts and not message.delivered
        }

    def disagreement(self) -> str | None:
        """One entity of which mirror and ledger do not say the same."""
        found = self.world.databases.rows(
            """select kind, key, m.version, l.version
                 from (select * from mirror.entity where version > 0) m
                 full join ledger.entity l using (tenant, kind, key)
                where (m.version, m.content_hash) is distinct from (l.version, l.content_hash)
                order by kind, key limit 1"""
        )
        return "{} {}: version {} in the mirror, {} in the ledger".format(*found[0]) if found else None

    def dead(self) -> list[tuple[str, str]]:
        """Seats that need a person, with the reason."""
        return [
            (seat, reason)
            for seat, reason in self.world.databases.rows("select seat, reason from ledger.work where state = 'dead'")
        ]

    def in_the_end(self) -> None:
        """L-rules, after all faults have ended and everything has come to rest."""
        world = self.world
        dead = {seat for seat, _ in self.dead()}
        truth, found = world.sis.truth(), world.lms.states()
        for seat in sorted(truth.keys() | found.keys()):
            wanted, is_now = truth.get(seat, "deleted"), found.get(seat, "absent")
            if wanted == is_now or (wanted == "deleted" and is_now == "absent"):
                continue
            forgotten = world.overridden and world.hurt_ledger_at > -1 and wanted == "deleted"
            if forgotten and (is_now != "active" or self.rosters.is_left_to_people(seat)):
                continue  # an override that the ledger lost with its history gave it
            if wanted == "deleted" and self.rosters.is_nobodys(seat, is_now):
                continue
            if seat_key(seat.section, seat.user, seat.role) not in dead:
                world.violated("I2", f"{seat} should be {wanted} and is {is_now}")
        if world.calm:
            self._no_call_too_many()

    def _no_call_too_many(self) -> None:
        """I5: without faults, each write changed something."""
        world = self.world
        for attempt in world.lms.canvas.log.attempts:
            if attempt.applied and not attempt.changed:
                world.violated("I5", f"without any fault, a write that changed nothing: {attempt.endpoint} {attempt.before}")


def _first(states: list[str], state: str, start: int) -> int | None:
    return next((number for number in range(start, len(states)) if states[number] == state), None)


__all__ = ["Any", "Checks", "EnrollmentEvent"]
