"""What may happen in one step. An action is a function of the world and one number: a list of (name, number) is a run."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from itertools import chain

from schemas.events import EnrollmentRole
from services.consumer.ledger.replay_scopes import Scope
from services.consumer.ledger.replays import Order, Range
from services.consumer.nouns import SeatState
from tests.simulation.checks import Checks
from tests.simulation.lms import FATES
from tests.simulation.log import Entry
from tests.simulation.world import CONSUMERS, LAG_SECONDS, PUBLISHERS, World, section_name

Action = tuple[str, int]
FAILPOINTS = {
    "publisher": ("publisher.after_commit", "publisher.after_ack"),
    "consumer": (
        "consumer.after_ledger_commit",
        "consumer.after_intent",
        "consumer.after_call",
        "consumer.after_outcome",
        "consumer.after_poll",
        "consumer.after_commit",
    ),
}
_LOG_FAULTS = ("ack_lost", "refused", "late", "twice", "shuffled", "slow", "commit_lost", "dead_letters_refused")


class Run:
    """One world with its checker, and what the actions remember."""

    def __init__(self, world: World, checks: Checks) -> None:
        self.world = world
        self.checks = checks
        self.snapshots: dict[str, object] = {}
        self.repeat: set[tuple[str, str]] = set()
        """Rows of which a lost mirror had accepted more than the log has: a change without news makes no event."""
        self.log_incomplete = False
        """The log has not got all that the mirror has: a mirror that loses it now cannot take it back from there."""

    def step(self, action: Action) -> None:
        """Do it, let time pass, and look."""
        name, number = action
        chance = random.Random(f"{name} {number}")  # noqa: S311
        self.world.trace.add(self.world.scheduler.now, f"--- {name} {number}")
        if not (name in _SCHOOL and self._only_the_ledger_knows()):
            ACTIONS[name](self, chance)
        self._deliver(chance, everything=chance.random() < 0.6)
        self.world.run(chance.choice((0.02, 0.1, 0.3, 0.8, 2.0)))
        self.checks.after_step()

    def _only_the_ledger_knows(self) -> bool:
        """Until the mirror has again what it and the log have lost, a new row would hide that an older one is missing."""
        world = self.world
        if world.only_in_ledger and self.checks.disagreement() is None:
            world.only_in_ledger = False
        return world.only_in_ledger

    def begin(self) -> None:
        """The usual start: everybody runs, Canvas knows most people and sections."""
        world = self.world
        chance = random.Random(f"begin {world.seed}")  # noqa: S311
        for person in world.sis.people:
            if chance.random() < 0.85:
                world.lms.add_user(person)
        for section, course in world.sis.sections.items():
            if chance.random() < 0.85:
                world.lms.add_section(section_name(section), course)
        for slot in (*PUBLISHERS, *CONSUMERS):
            if slot.endswith("1") or chance.random() < 0.7:
                world.start(slot)
        for section in world.sis.sections:
            world.sis.send(world.sis.set_class(section, "A"))
        world.run(0.5)

    def _deliver(self, chance: random.Random, *, everything: bool) -> None:
        waiting = [message for message in self.world.sis.messages if not message.delivered]
        chance.shuffle(waiting)
        for message in waiting if everything else waiting[:1]:
            for _ in range(2 if chance.random() < 0.1 else 1):
                self.world.deliver(message, chance.choice(PUBLISHERS))

    def heal(self) -> None:
        """All faults end, everything that stands starts, Canvas gets what it lacked; then it has to come to rest, and right."""
        world, chance = self.world, random.Random(f"heal {self.world.seed}")  # noqa: S311
        world.trace.add(world.scheduler.now, "--- heal")
        databases = world.databases
        databases.lose_before = databases.lose_after = 0.0
        databases.down_until = dict.fromkeys(databases.down_until, 0.0)
        world.log.faults.clear()
        world.log.down_until = 0.0
        world.lms.fates.clear()
        world.lms.down_until = 0.0
        world.lms.canvas.settings.visibility_lag_seconds = 0.0
        for person in world.sis.people:
            world.lms.add_user(person)
        for section, course in world.sis.sections.items():
            world.lms.add_section(section_name(section), course)
        world.sis.repeat(self.repeat)
        for process in world.processes.values():
            process.paused_until = 0.0
            process.failpoints.clear()
        unfinished: str | None = "not begun"
        for _ in range(400):
            for slot in world.processes:
                if not world.running(slot):
                    world.start(slot)  # also what was still about to stop
            self._deliver(chance, everything=True)
            self.checks.guard.approve_everything(numbers=self.checks.numbers.reused)
            world.run(1.0)
            unfinished = self.checks.unfinished()
            if world.violations or (unfinished is None and self.checks.rosters.mend()):
                break
            if self.checks.in_shadow():
                self.checks.rosters.mend()
        if unfinished is not None:
            world.violated("L", f"no rest {world.scheduler.now:.0f} s into the run: {unfinished}")
        self.checks.after_step()
        self.checks.in_the_end()

    def replay(self) -> None:
        """I11: replaying the whole log on a settled system writes nothing to Canvas."""
        world = self.world
        before = len(world.lms.canvas.log.attempts)
        settled = not self.checks.dead()  # what a replay opens of dead letters may be written
        world.trace.add(world.scheduler.now, "--- replay of everything")
        number = 0
        for name, topic in world.log.topics.items():
            if world.topics.kind(name) is None:
                continue
            for partition, held in enumerate(topic.partitions):
                if held.high > held.low:
                    number += 1
                    world.databases.admin.execute(
                        """with stored as (
                             insert into ledger.replay (replay, scope, total, dry_run, verify, state, actor)
                             values (%(id)s, jsonb_build_object('offsets', jsonb_build_object(
                                       'topic', %(topic)s::text, 'partition', %(partition)s::int, 'from', %(low)s::bigint,
                                       'to', %(high)s::bigint - 1)), %(high)s::bigint - %(low)s::bigint,
                                     false, false, 'running', 'simulation') returning replay)
                           insert into ledger.replay_range (replay, topic, topic_id, "partition", first, last, next)
                           select replay, %(topic)s::text, %(topic_id)s, %(partition)s, %(low)s, %(high)s::bigint - 1, %(low)s
                             from stored""",
                        {
                            "id": uuid.UUID(f"00000000-0000-4000-8000-{number:012d}"),
                            "topic": name,
                            "topic_id": topic.identity,
                            "partition": partition,
                            "low": held.low,
                            "high": held.high,
                        },
                    )
        for _ in range(60):
            world.run(2.0)
            running = world.databases.rows("select from ledger.replay where state = 'running'")
            if not running and self.checks.unfinished() is None:
                break
        else:
            world.violated("I11", f"the replay did not come to rest: {self.checks.unfinished()}")
        written = [attempt for attempt in world.lms.canvas.log.attempts[before:] if attempt.applied]
        if written and settled:
            world.violated("I11", f"replaying a settled system made {len(written)} writes")
        self.checks.after_step()
        self.checks.in_the_end()


# --- the school ---


def change(run: Run, chance: random.Random) -> None:
    """Somebody enrolls, drops, withdraws, audits, ..."""
    sis = run.world.sis
    person, section = chance.choice(sis.people), chance.choice(list(sis.sections))
    status = chance.choice(("enrolled", "enrolled", "enrolled", "dropped", "dropped", "withdrawn", "waitlisted", "gone"))
    career = "GRAD" if chance.random() < 0.04 else "UGRD"
    sis.send(sis.set_student(person, section, status, career=career, auditor=chance.random() < 0.1))


def audit(run: Run, chance: random.Random) -> None:
    """Somebody changes between credit and audit: another role in Canvas, and a second row of one person in one section."""
    sis = run.world.sis
    person, section = chance.choice(sis.people), chance.choice(list(sis.sections))
    sis.send(sis.set_student(person, section, "enrolled", auditor=chance.random() < 0.5))


def swap(run: Run, chance: random.Random) -> None:
    """One section for another, in one message."""
    sis = run.world.sis
    if len(sis.sections) > 1:
        person, (one, other) = chance.choice(sis.people), chance.sample(list(sis.sections), 2)
        sis.send([*sis.set_student(person, one, "dropped"), *sis.set_student(person, other, "enrolled")])


def flap(run: Run, chance: random.Random) -> None:
    """Add, drop, add, in a row: three messages that may come in any order."""
    sis = run.world.sis
    person, section = chance.choice(sis.people), chance.choice(list(sis.sections))
    for status in chance.choice(
        (("enrolled", "dropped"), ("enrolled", "dropped", "enrolled"), ("dropped", "enrolled", "dropped"))
    ):
        sis.now += 0.001
        sis.send(sis.set_student(person, section, status))


def classes(run: Run, chance: random.Random) -> None:
    """A class is cancelled or comes back."""
    sis = run.world.sis
    sis.send(sis.set_class(chance.choice(list(sis.sections)), chance.choice("AX")))


def fill_class(run: Run, chance: random.Random) -> None:
    """Everybody enrolls in one class."""
    sis = run.world.sis
    section = chance.choice(list(sis.sections))
    for person in sis.people:
        sis.send(sis.set_student(person, section, "enrolled"))


def empty_class(run: Run, chance: random.Random) -> None:
    """A feed drops everybody in one class, in one message or in one for each."""
    sis = run.world.sis
    section = chance.choice(list(sis.sections))
    rows = [sis.set_student(person, section, "dropped") for person in sis.people]
    for changes in [list(chain(*rows))] if chance.random() < 0.5 else rows:
        sis.send(changes)


def leave_class(run: Run, chance: random.Random) -> None:
    """One after the other leaves the class in which most are."""
    sis = run.world.sis
    classes: dict[str, list[str]] = {section: [] for section in sis.sections}
    for seat, state in sis.truth().items():
        number = seat.section.rsplit("-", 1)[1]
        if state == "active" and seat.role == "StudentEnrollment" and number in classes:
            classes[number].append(seat.user)
    section, members = max(classes.items(), key=lambda item: len(item[1]))
    if members:
        sis.send(sis.set_student(chance.choice(sorted(members)), section, "dropped"))


def limit_removals(run: Run, chance: random.Random) -> None:
    """The registrar applies a policy under which a class loses few members without a person."""
    run.checks.guard.limit(chance.choice(CONSUMERS))


def look_at_holds(run: Run, chance: random.Random) -> None:
    """An operator looks at what is held."""
    run.checks.guard.look(chance.choice(CONSUMERS))


def approve_holds(run: Run, chance: random.Random) -> None:
    """The operator approves what was seen then."""
    run.checks.guard.approve(chance.choice(CONSUMERS))


def reuse_number(run: Run, chance: random.Random) -> None:
    """The number of a class is given to another one."""
    run.checks.numbers.reuse(chance)


def meddle(run: Run, chance: random.Random) -> None:
    """A teacher, or another tool, changes a row of Canvas."""
    run.checks.rosters.meddle(chance)


def compare(run: Run, chance: random.Random) -> None:
    """An operator has the rosters compared, and what differs repaired."""
    run.checks.rosters.compare(chance.choice(CONSUMERS))


def adopt_drift(run: Run, chance: random.Random) -> None:
    """The registrar has what teachers do in Canvas hold for some time."""
    run.checks.rosters.adopt(chance.choice(CONSUMERS))


def into_shadow(run: Run, chance: random.Random) -> None:
    """An operator stops all writing."""
    run.checks.rosters.into_shadow(chance.choice(CONSUMERS))


def go_live(run: Run, chance: random.Random) -> None:
    """An operator has it begin again."""
    run.checks.rosters.go_live(chance.choice(CONSUMERS))


def override(run: Run, chance: random.Random) -> None:
    """The registrar decides a seat otherwise than the student system for some seconds, or takes that back."""
    world = run.world
    slot = chance.choice(CONSUMERS)
    if chance.random() < 0.2:
        world.withdraw_override(slot)
        return
    role: EnrollmentRole = chance.choice(("student", "student", "student", "auditor", "instructor_primary"))
    gives: SeatState = chance.choice(("active", "active", "deleted", "inactive"))
    person, section = chance.choice(world.sis.people), chance.choice(list(world.sis.sections))
    world.override(slot, person, section, role, gives, chance.choice((0.5, 3.0, 20.0)))


def instructor(run: Run, chance: random.Random) -> None:
    """The row of a meeting pattern names another person, or goes."""
    sis = run.world.sis
    person = chance.choice([*sis.people, None])
    sis.send(sis.set_instructor(chance.choice(list(sis.sections)), chance.choice("12"), person, chance.choice(("PI", "TA"))))


def extract(run: Run, _chance: random.Random) -> None:
    """A full extract."""
    run.world.sis.extract()


def resend(run: Run, chance: random.Random) -> None:
    """An old message comes again, long after it was accepted."""
    messages = run.world.sis.messages
    if messages:
        run.world.deliver(chance.choice(messages), chance.choice(PUBLISHERS))


def objects(run: Run, chance: random.Random) -> None:
    """Canvas gets a person or a section that it lacked."""
    world = run.world
    world.lms.add_user(chance.choice(world.sis.people))
    section, course = chance.choice(list(world.sis.sections.items()))
    world.lms.add_section(section_name(section), course)


def opening(run: Run, chance: random.Random) -> None:
    """A new section, or a new person, and enrollments that Canvas hears of before and after it has that."""
    world, sis = run.world, run.world.sis
    seconds = chance.choice((0.02, 0.5, 1.0, 2.0, 3.0))
    if chance.random() < 0.6:
        section = f"{100 + len(sis.sections)}"
        sis.sections[section] = course = chance.choice(["C1", "C2"])
        world.scheduler.call_later(seconds, lambda: world.lms.add_section(section_name(section), course))
        sis.send(sis.set_class(section, "A"))
        for person in chance.sample(sis.people, min(3, len(sis.people))):
            sis.send(sis.set_student(person, section, "enrolled"))
    else:
        person = f"P{len(sis.people) + 1}"
        sis.people.append(person)
        world.scheduler.call_later(seconds, lambda: world.lms.add_user(person))
        for section in list(sis.sections)[:3]:
            sis.send(sis.set_student(person, section, "enrolled"))


def crosslist(run: Run, chance: random.Random) -> None:
    """Somebody moves a section of Canvas into another course."""
    world = run.world
    section, _ = chance.choice(list(world.sis.sections.items()))
    if world.lms.crosslist(section_name(section), chance.choice(["C1", "C2", "C9"])):
        world.bites("canvas section cross-listed")


def operate(run: Run, chance: random.Random) -> None:
    """An operator replays a range of the log."""
    world = run.world
    slot = chance.choice(CONSUMERS)
    places = [
        (name, number, partition)
        for name, topic in world.log.topics.items()
        if world.topics.kind(name) == "enrollment"
        for number, partition in enumerate(topic.partitions)
        if partition.high > partition.low
    ]
    if places and world.running(slot) and slot in world.programs:
        name, number, partition = chance.choice(places)
        first = chance.randrange(partition.low, partition.high)
        last = chance.randrange(first, partition.high)
        place = Range(name, world.log.topics[name].identity, number, first, last, first)
        asked = Scope.model_validate({"offsets": {"topic": name, "partition": number, "from": first, "to": last}})
        world.operate(slot, Order(asked, [place], dry_run=False, verify=chance.random() < 0.3))


def wait(run: Run, chance: random.Random) -> None:
    """Nothing happens for a while."""
    run.world.run(chance.choice((1.0, 3.0, 6.0)))


# --- faults ---


def kill(run: Run, chance: random.Random) -> None:
    slot = chance.choice((*PUBLISHERS, *CONSUMERS))
    if run.world.running(slot):
        run.world.bites("process killed")
        run.world.kill(slot)
        if chance.random() < 0.7:
            run.world.run(chance.choice((0.0, 0.5, 3.0)))
            run.world.start(slot)


def kill_at_failpoint(run: Run, chance: random.Random) -> None:
    slot = chance.choice((*PUBLISHERS, *CONSUMERS))
    if run.world.running(slot):
        name = chance.choice(FAILPOINTS[slot.split("-")[0]])
        action = "kill" if chance.random() < 0.6 else f"pause {chance.choice((1, 5, 9))}"
        run.world.processes[slot].failpoints[name] = (action, chance.choice((1, 1, 2, 3)))


def start(run: Run, _chance: random.Random) -> None:
    """Whatever does not run, runs."""
    for slot in (*PUBLISHERS, *CONSUMERS):
        if not run.world.running(slot):
            run.world.start(slot)


def stop(run: Run, chance: random.Random) -> None:
    """A rolling restart: SIGTERM, and a new process."""
    slot = chance.choice((*PUBLISHERS, *CONSUMERS))
    run.world.bites("process stopped")
    run.world.stop(slot)
    run.world.run(chance.choice((0.2, 7.0)))
    if not run.world.running(slot):
        run.world.start(slot)


def pause(run: Run, chance: random.Random) -> None:
    slot = chance.choice((*PUBLISHERS, *CONSUMERS))
    if run.world.running(slot):
        run.world.bites("process paused")
        run.world.pause(slot, chance.choice((0.5, 3.0, 6.0, 12.0)))


def canvas_faults(run: Run, chance: random.Random) -> None:
    """Canvas becomes unreliable in some ways, or well again."""
    lms = run.world.lms
    if chance.random() < 0.3:
        lms.fates.clear()
        return
    for fate in chance.sample(FATES, chance.randint(1, 4)):
        lms.fates[fate] = chance.choice((0.05, 0.15, 0.4))
    total = sum(lms.fates.values())
    if total > 0.8:
        lms.fates.update({fate: share * 0.8 / total for fate, share in lms.fates.items()})


def canvas_links(run: Run, chance: random.Random) -> None:
    """Lists come in small pages, and some name a next page on another host."""
    run.world.lms.fates = {"foreign_link": chance.choice((0.1, 0.5)), "small_pages": 0.3}


def canvas_slow(run: Run, chance: random.Random) -> None:
    """What an answer says is not so any more when it comes."""
    run.world.lms.fates = {"slow": chance.choice((0.3, 0.8))}


def canvas_down(run: Run, chance: random.Random) -> None:
    run.world.lms.down_until = run.world.scheduler.now + chance.choice((0.5, 2.0, 5.0))


def canvas_lag(run: Run, chance: random.Random) -> None:
    """Reads show what was."""
    run.world.lms.canvas.settings.visibility_lag_seconds = chance.choice((0.0, 0.3, LAG_SECONDS * 0.9))
    run.world.bites("canvas visibility lag")


def log_faults(run: Run, chance: random.Random) -> None:
    faults = run.world.log.faults
    if chance.random() < 0.3:
        faults.clear()
        return
    for fault in chance.sample(_LOG_FAULTS, chance.randint(1, 3)):
        faults[fault] = chance.choice((0.05, 0.2, 0.5))


def log_down(run: Run, chance: random.Random) -> None:
    run.world.log.down_until = run.world.scheduler.now + chance.choice((0.5, 2.0, 5.0))


def rebalance(run: Run, _chance: random.Random) -> None:
    run.world.bites("rebalance")
    run.world.log.group("sim").rebalance()


def poison(run: Run, chance: random.Random) -> None:
    """A record that nobody can read."""
    world = run.world
    world.bites("undecodable record")
    value = chance.choice((b"not json", b"{}", None, b'{"tenant": 1}', b"\xff\xfe"))
    world.log.append(
        world.topics.entity(chance.choice(("enrollment", "section"))), Entry(bytes([chance.randrange(256)]), value, [])
    )


def database_crash(run: Run, chance: random.Random) -> None:
    name = chance.choice(("mirror", "ledger"))
    run.world.bites(f"{name} crashed")
    run.world.databases.crash(name, chance.choice((0.1, 1.0, 4.0)))


def database_faults(run: Run, chance: random.Random) -> None:
    """Connections break now and then: before a statement, or with its outcome unknown."""
    databases = run.world.databases
    if chance.random() < 0.4:
        databases.lose_before = databases.lose_after = 0.0
        return
    databases.lose_before, databases.lose_after = chance.choice(((0.01, 0.0), (0.0, 0.01), (0.02, 0.02)))


def interleaving(run: Run, chance: random.Random) -> None:
    """Transactions are interrupted by others, statement by statement."""
    run.world.databases.interleave = chance.choice((0.0, 0.05, 0.2, 0.5))


def backup(run: Run, chance: random.Random) -> None:
    name = chance.choice(("mirror", "ledger"))
    run.snapshots[name] = run.world.databases.snapshot(name)


def restore(run: Run, chance: random.Random) -> None:
    """A database comes back from a backup, or a standby that lacked the last commits is promoted."""
    if not run.snapshots:
        return
    name = chance.choice(sorted(run.snapshots))
    saved = run.snapshots[name]
    world = run.world
    world.bites(f"{name} restored")
    _cut_history(run, name)
    world.databases.restore(name, saved)  # type: ignore[arg-type]
    system, timeline = world.databases.identity[name]
    world.databases.set_identity(name, system, timeline + 1)


def empty_mirror(run: Run, _chance: random.Random) -> None:
    """A new, empty database in the mirror's place."""
    world = run.world
    if run.log_incomplete:
        return
    world.bites("mirror replaced by an empty one")
    _cut_history(run, "mirror")
    world.databases.crash("mirror", 0.5)
    world.databases.wipe("mirror")
    system, _ = world.databases.identity["mirror"]
    world.databases.set_identity("mirror", system + 1, 1)


def _cut_history(run: Run, name: str) -> None:
    if name == "ledger":
        run.world.hurt_ledger_at = run.world.scheduler.now
        run.checks.ledger_was_restored()
    else:
        run.world.hurt_mirror = True
        run.repeat |= run.checks.known_to_the_mirror_alone()
        for row in run.repeat | run.checks.under_way():
            run.world.sis.promise_no_order(row)


def put_back(run: Run, _chance: random.Random) -> None:
    """The mirror's disk is put back to an earlier moment: same database, same timeline, as far as it says."""
    saved = run.snapshots.get("mirror")
    if saved is not None:
        run.world.bites("mirror's disk put back")
        _cut_history(run, "mirror")
        run.world.databases.restore("mirror", saved)  # type: ignore[arg-type]


def digests(run: Run, chance: random.Random) -> None:
    """An operator has the mirror say what it holds."""
    run.world.ask_for_digests(chance.choice(PUBLISHERS))


def log_lost(run: Run, chance: random.Random) -> None:
    """A topic is deleted and made anew, or retention takes records that nobody has read yet."""
    world = run.world
    if not run.checks.mirror_has_everything() or world.databases.rows("select from ledger.recovery where active"):
        return  # no promise holds when both lose the same
    name = world.topics.entity(chance.choice(("enrollment", "enrollment", "section")))
    if chance.random() < 0.6:
        world.bites("topic recreated")
        world.log.recreate(name)
    else:
        world.bites("log trimmed")
        world.log.trim(name)
    _no_way_back(run)


def silent_loss(run: Run, chance: random.Random) -> None:
    """The mirror's disk is put back further than the log goes: only the ledger has what came after, and only digests tell."""
    world = run.world
    saved = run.snapshots.get("mirror")
    if saved is None or world.sis.tangled or not run.checks.mirror_has_everything() or not run.checks.taken_in():
        return
    world.bites("mirror lost what the log has not got any more")
    for name in world.log.topics:
        if world.topics.kind(name) is not None:
            world.log.trim(name)
    put_back(run, chance)
    _no_way_back(run)
    world.only_in_ledger = True
    world.run(1.0)
    digests(run, chance)


def _no_way_back(run: Run) -> None:
    """What the log held until now it cannot give to a mirror or a ledger that forgets it: no older backup is of use."""
    run.snapshots.clear()
    run.log_incomplete = True


def clock_jump(run: Run, chance: random.Random) -> None:
    """A host's wall clock is set, by an hour or two days."""
    world = run.world
    world.bites("wall clock jumped")
    slot = chance.choice((*PUBLISHERS, *CONSUMERS))
    if slot in world.processes:
        world.processes[slot].wall_offset += chance.choice((-3600.0, 600.0, 172_800.0))


_RULES: list[tuple[Callable[[Run, random.Random], None], int, bool]] = [
    (change, 26, False),
    (audit, 3, False),
    (swap, 8, False),
    (flap, 8, False),
    (classes, 2, False),
    (fill_class, 2, False),
    (empty_class, 2, False),
    (leave_class, 2, False),
    (limit_removals, 2, False),
    (look_at_holds, 2, False),
    (approve_holds, 2, False),
    (instructor, 2, False),
    (extract, 2, False),
    (resend, 4, False),
    (objects, 2, False),
    (opening, 3, False),
    (operate, 2, True),
    (crosslist, 1, True),
    (wait, 5, False),
    (kill, 5, True),
    (kill_at_failpoint, 8, True),
    (start, 4, False),
    (stop, 3, True),
    (pause, 4, True),
    (canvas_faults, 8, True),
    (canvas_links, 1, True),
    (canvas_slow, 1, True),
    (canvas_down, 2, True),
    (canvas_lag, 2, True),
    (log_faults, 5, True),
    (log_down, 2, True),
    (rebalance, 3, True),
    (poison, 2, True),
    (database_crash, 2, True),
    (database_faults, 3, True),
    (interleaving, 3, True),
    (backup, 4, False),
    (restore, 3, True),
    (empty_mirror, 1, True),
    (put_back, 1, True),
    (silent_loss, 2, True),
    (log_lost, 1, True),
    (digests, 2, False),
    (clock_jump, 2, True),
    (override, 0, False),
    (reuse_number, 0, False),
    (meddle, 0, True),
    (compare, 0, True),
    (adopt_drift, 0, True),
    (into_shadow, 0, True),
    (go_live, 0, True),
]
ACTIONS: dict[str, Callable[[Run, random.Random], None]] = {function.__name__: function for function, _, _ in _RULES}
_SCHOOL = {
    function.__name__
    for function in (
        change,
        audit,
        swap,
        flap,
        classes,
        fill_class,
        empty_class,
        leave_class,
        instructor,
        extract,
        resend,
        opening,
        reuse_number,
    )
}
_REGISTRARS = 16
"""One seed in so many is the registrar's: of seats that are overridden only the end is checked, so that the others check more."""
_ROSTERS = 8
"""In one seed of so many a teacher meddles with rows, and operators compare rosters and go in and out of shadow."""
_ADOPTIONS = 16
"""In every other of those a registrar has the policy adopt what the teacher does."""
_NUMBERS = 16
"""In one seed of so many the registrar gives numbers to other classes: of their seats only the end is checked as well."""
_HARMFUL = {function.__name__ for function, _, harmful in _RULES if harmful}


def choose(seed: int, more: Sequence[tuple[str, int]] = ()) -> list[Action]:
    """The actions of a seed. Each seed leaves some kinds of faults out, so that the others get room; some have none at all.

    `more`: further weight for some of them, which are never left out.
    """
    chance = random.Random(f"actions {seed}")  # noqa: S311
    calm = chance.random() < 0.06
    kept = chance.choice((0.25, 0.5, 1.0))
    if seed % _REGISTRARS == _REGISTRARS - 1:
        more = (*more, ("override", 60))
    if seed % _NUMBERS == _NUMBERS // 4 - 1:
        more = (*more, ("reuse_number", 20), ("approve_holds", 10), ("look_at_holds", 10))
    if seed % _ROSTERS == _ROSTERS // 2:
        more = (*more, ("meddle", 14), ("compare", 14), ("into_shadow", 6), ("go_live", 10))
    if seed % _ADOPTIONS == _ADOPTIONS // 4:
        more = (*more, ("adopt_drift", 10), ("meddle", 40), ("compare", 30), ("fill_class", 10))
    names, weights = [], []
    for function, weight, harmful in _RULES:
        extra = dict(more).get(function.__name__, 0)
        if weight + extra == 0:
            continue
        if harmful and not extra and (calm or chance.random() > kept):
            continue
        names.append(function.__name__)
        weights.append(weight + extra)
    return [(name, chance.randrange(1 << 16)) for name in chance.choices(names, weights, k=chance.randint(10, 28))]


def is_calm(actions: list[Action]) -> bool:
    """Whether no fault can happen: then not even a superfluous call may."""
    return not any(name in _HARMFUL for name, _ in actions)
