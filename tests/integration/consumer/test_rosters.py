"""What rosters do to a ledger, without a driver: what is learnt, what stands, what is repaired and what is left alone."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import pytest

from services.consumer.guard import reviewing
from services.consumer.housekeeping import Housekeeping
from services.consumer.ledger import policies, recovery, writing
from services.consumer.ledger.writing import Compared, NotCompared
from services.consumer.metrics import Metrics
from services.consumer.nouns import SeatRef, seat_key
from services.consumer.policy.model import default_text
from services.consumer.rosters import agreement, findings, recording, runs, sections
from services.consumer.rosters.comparing import Comparison
from services.consumer.rosters.findings import Filter
from services.consumer.rosters.runs import Scope
from services.consumer.targets.port import Observation, ObservedState, RosterRow
from tests.integration.consumer.ledger_support import TENANT, TIMERS, Heard, Ledger, enrollment, section_event
from tests.policies import unguarded

STUDENT = "StudentEnrollment"
TARGET, TERM = "canvas", "PSUNV/1259"
REMOVED_IN_TIME = unguarded().replace("extra_manual: report", "extra_manual: {remove_after_days: 14}")
EVERYTHING = Compared("{}", "")


def row(user: str, state: ObservedState = "active", *, role: str = STUDENT, enrollment_id: str | None = None) -> RosterRow:
    return RosterRow(user, role, role, Observation(state, enrollment_id or f"e-{user}-{role}", "c1"))


@dataclass
class Lms:
    """Rosters by section, and what a read of a single seat shows when it is not what the roster does."""

    ledger: Ledger
    rosters: dict[str, list[RosterRow]] = field(default_factory=dict)
    reads: dict[str, Observation] = field(default_factory=dict)
    """By SIS id of the user."""
    accountless: set[str] = field(default_factory=set)
    """Users whom the LMS does not have, by SIS id."""

    def put(self, *rows: RosterRow, section: str = "1001") -> None:
        self.rosters.setdefault(f"PSUNV-1259-{section}", []).extend(rows)

    def show(self, *rows: RosterRow, section: str = "1001") -> None:
        """These and no others."""
        self.rosters[f"PSUNV-1259-{section}"] = list(rows)

    def compare(self, *, repair: bool = True, scope: Scope = Scope(), quiet: float = 0.0) -> list[Comparison]:  # noqa: B008
        """What the driver does, from the start of a comparison to its end."""
        connection = self.ledger.connection
        runs.start(connection, TARGET, uuid.uuid4(), scope, self.ledger.policies, "ops", repair=repair)
        found = []
        for section in sections.due(connection, TARGET, 1000, quiet):
            roster = self.rosters.get(section.lms_section, [])
            doubtful = recording.doubtful(connection, TARGET, section, roster)
            reads = {key: self.reads.get(seat.lms_user, Observation("absent")) for key, seat in doubtful.items()}
            userless = [key for key, seat in doubtful.items() if seat.lms_user in self.accountless]
            recorded = recording.record(
                connection, TARGET, section, roster, reads, self.ledger.policies, lambda _: True, userless
            )
            assert recorded is not None
            found.append(recorded)
        sections.end_if_done(connection, TARGET, lambda _: True)
        self.ledger.check()
        return found


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.close()


@pytest.fixture
def lms(ledger: Ledger) -> Lms:
    return Lms(ledger)


def ref(person: str, section: str = "1001", role: str = STUDENT) -> SeatRef:
    return SeatRef(TARGET, seat_key(f"PSUNV-1259-{section}", person, role))


def confirmed(ledger: Ledger, lms: Lms, *people: str) -> None:
    """Everybody has the seat, in the ledger and in the LMS, since an hour."""
    ledger.take(*(enrollment(person=person) for person in people))
    ledger.settle()
    ledger.connection.execute("update seat set applied_at = clock_timestamp() - interval '1 hour', applied_version = version")
    lms.put(*(row(person) for person in people))


def kinds(ledger: Ledger) -> dict[str | None, str]:
    return {one.person: one.kind for one in findings.page(ledger.connection, ledger.policies, Filter(), 0, 1000)}


def days_pass(ledger: Ledger, days: int) -> None:
    """For what stands, and for what was said about terms."""
    ledger.connection.execute("update roster_finding set found_at = found_at - %s * interval '1 day'", [days])
    ledger.connection.execute("update writing set since = since - %s * interval '1 day'", [days])


def term_ends(ledger: Ledger, day: date | None) -> None:
    ledger.connection.execute(
        """insert into entity (tenant, kind, key, version, content_hash, event, topic, "partition", "offset", accepted_at)
           values (%s, 'term', %s, 1, 'x', jsonb_build_object('end_date', %s::text), 't', 0, 0, now())""",
        [TENANT, TERM, day.isoformat() if day else None],
    )


def with_policy(ledger: Ledger, text: str) -> None:
    policies.store(ledger.connection, TENANT, text, "registrar")


# --- who is a stranger ---


@pytest.mark.parametrize("state", ["dead", "held", "waiting", "retrying"])
def test_our_own_person_under_another_id_is_never_removed_as_a_stranger(ledger: Ledger, lms: Lms, state: str) -> None:
    """Their seat is at work, so that nothing is said of it; a read still finds whose row it is."""
    with_policy(ledger, REMOVED_IN_TIME)
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1"), row("new-2"))
    lms.reads["p2"] = row("new-2").observation
    ledger.connection.execute("update seat set applied = 'unknown' where person = 'p2'")
    ledger.connection.execute(
        """insert into work (target, seat, tenant, person, state, priority, next_at, waits_kind, waits_object)
           select target, seat, tenant, person, %(state)s, 2, clock_timestamp() + interval '1 hour',
                  case when %(state)s = 'waiting' then 'user' end, case when %(state)s = 'waiting' then 'p2' end
             from seat where person = 'p2'""",
        {"state": state},
    )
    if state == "waiting":
        ledger.connection.execute(
            """insert into dependency (target, kind, object, state, next_probe_at)
               values ('canvas', 'user', 'p2', 'missing', clock_timestamp())"""
        )
    for _ in range(2):
        lms.compare()
        days_pass(ledger, 20)
    # Who has no account is not asked for again: the stranger is listed, and stays.
    assert kinds(ledger) == ({"new-2": "extra_manual"} if state == "waiting" else {})
    assert ledger.rows("select count(*) from seat") == [(2,)]


def test_while_somebody_cannot_be_read_no_stranger_is_removed(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, REMOVED_IN_TIME)
    confirmed(ledger, lms, "p1")
    lms.show(row("p9"))
    run = uuid.uuid4()
    runs.start(ledger.connection, TARGET, run, Scope(), ledger.policies, "ops", repair=True)
    (section,) = sections.due(ledger.connection, TARGET, 10, 0)
    ledger.connection.execute("insert into writing values ('canvas', '', true, 'x', 'ops', now() - interval '99 days')")
    for _ in range(2):
        unread = recording.record(ledger.connection, TARGET, section, [row("p9")], {}, ledger.policies, lambda _: True)
        assert unread is not None
        assert [one.certain for one in unread.differences] == [False]
        ledger.connection.execute("update roster_section set state = 'open'")
        days_pass(ledger, 20)
    assert ledger.rows("select count(*) from work") == [(0,)]


def test_a_stranger_who_has_the_row_of_a_seat_of_ours_is_not_taken_over(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, REMOVED_IN_TIME)
    confirmed(ledger, lms, "p1", "p2")
    ledger.connection.execute("update seat set lms_enrollment = 'e-7' where person = 'p2'")
    lms.show(row("p1"), row("p9", enrollment_id="e-7"))
    for _ in range(2):
        lms.compare()
        days_pass(ledger, 20)
    assert ledger.rows("select count(*) from seat where person = 'p9'") == [(0,)]


def test_two_people_who_are_one_user_of_the_lms_are_no_difference(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1"))
    lms.reads["p2"] = row("p1").observation
    (found,) = lms.compare()
    assert (found.differences, ledger.work()) == ([], {})


# --- what is repaired ---


def test_days_count_from_the_day_on_which_the_term_went_live(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, REMOVED_IN_TIME)
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    writing.shadow(ledger.connection, TARGET, TERM, "a trial", "ops")
    lms.compare()
    days_pass(ledger, 30)
    writing.go_live(ledger.connection, TARGET, TERM, "ready", "ops", compared=None)
    lms.compare()
    assert (kinds(ledger), ledger.work()) == ({"guest": "extra_manual"}, {})
    days_pass(ledger, 14)
    lms.compare()
    assert list(ledger.work()) == [ref("guest")]


def test_who_comes_back_by_hand_is_judged_by_the_policy_of_that_day(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, REMOVED_IN_TIME)
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    days_pass(ledger, 14)
    lms.compare()
    ledger.settle()
    ledger.connection.execute("update seat set applied_at = clock_timestamp() where person = 'guest'")
    assert sections.forget_cured(ledger.connection, TARGET) == 1
    with_policy(ledger, unguarded())
    lms.compare()
    days_pass(ledger, 300)
    lms.compare()
    assert (kinds(ledger), ledger.work()) == ({"guest": "extra_manual"}, {})


def test_a_person_who_was_taken_over_and_enrolls_has_the_seat(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, REMOVED_IN_TIME)
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    days_pass(ledger, 14)
    lms.compare()
    assert ledger.desired()[ref("guest")] == "deleted"
    ledger.take(enrollment(person="guest"))
    assert ledger.desired()[ref("guest")] == "active"
    ledger.check()


def test_a_policy_that_says_nothing_of_drift_has_everything_listed(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, unguarded().partition("\ndrift:")[0])
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", "completed"))
    lms.compare()
    assert (kinds(ledger), ledger.work()) == ({"p1": "wrong_state", "p2": "missing"}, {})


def test_a_roster_that_lacks_half_of_a_section_is_not_believed_enough_to_repair_it(ledger: Ledger, lms: Lms) -> None:
    people = [f"p{number}" for number in range(30)]
    confirmed(ledger, lms, *people)
    lms.show(*(row(person) for person in people[15:]))
    lms.compare()
    assert (len(kinds(ledger)), ledger.work()) == (15, {})
    lms.show(*(row(person) for person in people[14:]))
    lms.compare()
    assert len(ledger.work()) == 14


def test_a_seat_is_repaired_where_its_own_term_is_live(ledger: Ledger, lms: Lms) -> None:
    """One section of the LMS for two of the student system."""
    with_policy(ledger, unguarded().replace('section: "{institution}-{term}-{section}"', 'section: "{section}"'))
    ledger.take(enrollment(person="p1"), enrollment(person="p2").model_copy(update={"term": "1262"}))
    ledger.settle()
    ledger.connection.execute("update seat set applied_at = clock_timestamp() - interval '1 hour'")
    writing.shadow(ledger.connection, TARGET, TERM, "a trial", "ops")
    lms.compare()
    stands = {one.person: (one.section, one.live) for one in findings.page(ledger.connection, ledger.policies, Filter(), 0, 10)}
    assert stands == {"p1": ("PSUNV/1259/1001", False), "p2": ("PSUNV/1262/1001", True)}
    assert ledger.rows("select person from work where read_first order by person") == [("p1",), ("p2",)]
    assert ledger.rows("select repairs from roster_run") == [(1,)]


# --- shadow ---


def test_after_a_failover_a_shadow_is_compared_as_before(ledger: Ledger, lms: Lms) -> None:
    ledger.take(*(enrollment(person=f"p{number}") for number in range(3)))
    writing.shadow(ledger.connection, TARGET, "", "a trial", "ops")
    lms.put(row("p0"), row("p1"))
    with ledger.connection.transaction():
        recovery.enter(ledger.connection, "restored", 0.0)
    (found,) = lms.compare()
    assert (kinds(ledger), found.untold) == ({"p2": "missing"}, set())
    (term,) = agreement.by_term(ledger.connection, TARGET, "")
    assert (term.seats, term.agree, term.unknown) == (3, 2, 0)


def test_a_doubt_that_is_not_over_is_not_cleared_by_a_roster(ledger: Ledger, lms: Lms) -> None:
    ledger.take(enrollment(person="p0"))
    writing.shadow(ledger.connection, TARGET, "", "a trial", "ops")
    with ledger.connection.transaction():
        recovery.enter(ledger.connection, "restored", 60.0)
    (found,) = lms.compare()
    assert found.untold == {ref("p0").seat}
    assert ledger.rows("select applied, suspect_until is null from seat") == [("unknown", False)]


def test_in_shadow_the_lms_is_believed_as_often_as_it_is_asked(ledger: Ledger, lms: Lms) -> None:
    ledger.take(enrollment(person="p0"), enrollment(person="p1"))
    writing.shadow(ledger.connection, TARGET, "", "a trial", "ops")
    for shown in (["p0"], ["p1"], ["p0", "p1"], []):
        lms.show(*(row(person) for person in shown))
        lms.compare(quiet=60)
        assert set(kinds(ledger)) == {"p0", "p1"} - set(shown)


def test_the_guard_does_not_judge_what_is_in_shadow(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, default_text().replace("wait_seconds: 60", "wait_seconds: 0"))
    people = [f"p{number}" for number in range(20)]
    confirmed(ledger, lms, *people)
    writing.shadow(ledger.connection, TARGET, TERM, "a trial", "ops")
    ledger.take(*(enrollment("dropped", person=person, version=2) for person in people))

    def review() -> reviewing.Review:
        return reviewing.review(ledger.connection, TARGET, ledger.policies, lambda _: True)

    assert (review().held, set(ledger.work().values())) == (0, {"guarded"})
    writing.go_live(ledger.connection, TARGET, TERM, "ready", "ops", compared=None)
    assert (review().held, set(ledger.work().values())) == (20, {"held"})


def _failed(ledger: Ledger) -> None:
    ledger.connection.execute("update roster_section set state = 'failed'")


def _missing(ledger: Ledger) -> None:
    ledger.connection.execute("update roster_section set state = 'missing'")


@pytest.mark.parametrize("nothing", [_failed, _missing])
def test_a_comparison_that_read_nothing_opens_no_gate(ledger: Ledger, lms: Lms, nothing: Callable[[Ledger], None]) -> None:
    ledger.take(enrollment(person="p0"))
    writing.shadow(ledger.connection, TARGET, "", "a trial", "ops")
    lms.compare(repair=False)
    nothing(ledger)
    with pytest.raises(NotCompared):
        writing.go_live(ledger.connection, TARGET, "", "ready", "ops", compared=EVERYTHING)


def test_gauges_and_agreement_know_each_term_by_its_own_word(ledger: Ledger, lms: Lms) -> None:
    """One word for a term and one for all others, as on every campus that went live by terms."""
    writing.shadow(ledger.connection, TARGET, "", "a trial", "ops")
    ledger.take(enrollment(person="p0"))
    lms.put(row("guest"))
    lms.compare()
    writing.go_live(ledger.connection, TARGET, TERM, "ready", "ops", compared=EVERYTHING)
    metrics = Metrics()
    keeper = Housekeeping(ledger.url, ledger.policies, metrics, Heard().wake, TIMERS)
    keeper.once(ledger.connection)

    def gauge(kind: str, mode: str) -> float | None:
        return metrics.registry.get_sample_value("sis_drift_items", {"target": TARGET, "kind": kind, "mode": mode})

    assert (gauge("extra_manual", "live"), gauge("extra_manual", "shadow")) == (1, 0)
    assert [count.live for count in findings.counts(ledger.connection, TARGET)] == [True, True]


# --- what goes soon ---


def gone_within(ledger: Ledger, days: int | None) -> list[str | None]:
    return [
        one.person
        for one in findings.page(ledger.connection, ledger.policies, Filter(goes_within_days=days), 0, 10)
        if one.goes_at
    ]


def test_who_goes_soon_is_told_before(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, REMOVED_IN_TIME)
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p2"), row("guest"))
    lms.compare(repair=False)
    assert (gone_within(ledger, None), gone_within(ledger, 13), gone_within(ledger, 15)) == (["guest"], [], ["guest"])
    assert findings.expiring(ledger.connection, ledger.policies) == (0, 0)
    days_pass(ledger, 8)
    assert (gone_within(ledger, 7), findings.expiring(ledger.connection, ledger.policies)) == (["guest"], (0, 1))
    days_pass(ledger, 5)
    lms.compare()
    assert (set(ledger.work()), findings.expiring(ledger.connection, ledger.policies)) == ({ref("p1")}, (1, 1))
    days_pass(ledger, 1)
    assert findings.expiring(ledger.connection, ledger.policies) == (1, 1), "its day has come, and no comparison yet"
    lms.compare()
    assert ref("guest") in ledger.work()
    assert (gone_within(ledger, None), findings.expiring(ledger.connection, ledger.policies)) == ([], (0, 0))


def test_days_of_notice_count_from_the_day_on_which_the_term_went_live(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, REMOVED_IN_TIME)
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    writing.shadow(ledger.connection, TARGET, TERM, "a trial", "ops")
    lms.compare()
    days_pass(ledger, 30)
    assert gone_within(ledger, None) == []
    writing.go_live(ledger.connection, TARGET, TERM, "ready", "ops", compared=None)
    assert (gone_within(ledger, 13), gone_within(ledger, 15)) == ([], ["guest"])


def test_in_a_term_that_is_over_nobody_goes_by_themselves(ledger: Ledger, lms: Lms) -> None:
    """No comparison comes to it unless somebody asks; the alert would never end."""
    with_policy(ledger, REMOVED_IN_TIME)
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    days_pass(ledger, 30)
    assert gone_within(ledger, None) == ["guest"]
    term_ends(ledger, datetime.now(UTC).date() - timedelta(days=20))
    assert (gone_within(ledger, None), findings.expiring(ledger.connection, ledger.policies)) == ([], (0, 0))


@pytest.mark.parametrize(
    ("policy", "shown"),
    [(unguarded(), row("guest")), (REMOVED_IN_TIME.replace('user: "{person}"', 'user: "p{person}"'), row("guest"))],
    ids=["only listed", "fits no template"],
)
def test_who_does_not_go_by_themselves_has_no_day(ledger: Ledger, lms: Lms, policy: str, shown: RosterRow) -> None:
    with_policy(ledger, policy)
    ledger.take(enrollment("dropped", person="1"))
    lms.put(shown)
    lms.compare()
    days_pass(ledger, 30)
    assert (gone_within(ledger, None), findings.expiring(ledger.connection, ledger.policies)) == ([], (0, 0))


def test_the_gauge_tells_how_many_go_within_a_day_and_a_week(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, REMOVED_IN_TIME)
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    days_pass(ledger, 8)
    metrics = Metrics()
    Housekeeping(ledger.url, ledger.policies, metrics, Heard().wake, TIMERS).once(ledger.connection)
    told = [
        metrics.registry.get_sample_value("sis_drift_expiring", {"target": TARGET, "within": within})
        for within in ("day", "week")
    ]
    assert told == [0, 1]


# --- what stands ---


def test_what_going_live_repairs_stands_no_more(ledger: Ledger, lms: Lms) -> None:
    ledger.take(enrollment(person="p0"))
    writing.shadow(ledger.connection, TARGET, "", "a trial", "ops")
    lms.put(row("guest"))
    lms.compare()
    assert kinds(ledger) == {"p0": "missing", "guest": "extra_manual"}
    writing.go_live(ledger.connection, TARGET, "", "ready", "ops", compared=EVERYTHING)
    ledger.settle()
    ledger.connection.execute("update seat set applied_at = clock_timestamp()")
    sections.forget_cured(ledger.connection, TARGET)
    assert kinds(ledger) == {"guest": "extra_manual"}


def test_what_stood_in_a_section_that_is_gone_stands_no_more(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.show()
    lms.compare(repair=False)
    assert kinds(ledger) == {"p1": "missing"}
    (term,) = agreement.by_term(ledger.connection, TARGET, "")
    assert (term.seats, term.agree) == (1, 0), "a seat that was seen to be missing does not agree"
    runs.start(ledger.connection, TARGET, uuid.uuid4(), Scope(), ledger.policies, "ops", repair=False)
    (section,) = sections.due(ledger.connection, TARGET, 10, 0)
    sections.missing(ledger.connection, TARGET, section, lambda _: True)
    assert kinds(ledger) == {}


# --- the schedule ---


def test_only_a_whole_comparison_puts_the_next_one_off(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.compare()
    ledger.connection.execute("update roster_run set created_at = created_at - interval '3 days'")
    lms.compare(scope=Scope("PSUNV", "1259"))
    lms.compare(repair=False)
    cancelled = uuid.uuid4()
    runs.start(ledger.connection, TARGET, cancelled, Scope(), ledger.policies, "ops", repair=True)
    runs.cancel(ledger.connection, TARGET, cancelled)
    assert is_due(ledger, days=2)
    assert not is_due(ledger, days=4)


def test_what_a_restored_ledger_forgot_is_looked_for_when_the_recovery_is_over(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.compare()
    ledger.connection.execute("update policy set created_at = created_at - interval '1 hour'")
    recovery.begin_session(ledger.connection, 0)
    recovery.enter(ledger.connection, "database", 0, behind=False)
    assert not is_due(ledger, days=0), "what is in motion tells nothing"
    ledger.settle()
    ledger.connection.execute("update seat set suspect_until = null")

    assert recovery.end_if_done(ledger.connection)
    assert is_due(ledger, days=1)

    lms.compare()
    assert not is_due(ledger, days=1)


def is_due(ledger: Ledger, days: int) -> bool:
    return runs.is_due(ledger.connection, TARGET, timedelta(days=days).total_seconds())


@pytest.mark.parametrize(
    ("ended", "count"), [(datetime.now(UTC).date() - timedelta(days=20), 0), (datetime.now(UTC).date(), 2), (None, 2)]
)
def test_terms_that_are_over_are_left_out_of_the_schedule(ledger: Ledger, ended: date | None, count: int) -> None:
    ledger.take(enrollment(person="p1"), section_event(section="1002"))
    term_ends(ledger, ended)
    run = uuid.uuid4()
    found = runs.start(ledger.connection, TARGET, run, Scope(), ledger.policies, "schedule", repair=True, ended_terms=False)
    assert found == count
    runs.cancel(ledger.connection, TARGET, run)
    assert runs.start(ledger.connection, TARGET, uuid.uuid4(), Scope(), ledger.policies, "ops", repair=True) == 2
