"""The guard over a real ledger: what is counted, held, approved and discarded, and what it takes to send a removal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from services.consumer.drive import intents, lease
from services.consumer.guard import holds, reviewing
from services.consumer.guard.holds import Hold
from services.consumer.guard.reviewing import Review
from services.consumer.ledger import database, policies, recovery
from services.consumer.policy.model import default_text
from services.kit import postgres
from tests.integration.consumer.api_support import Api
from tests.integration.consumer.ledger_support import TENANT, Ledger, enrollment, seat, section_event
from tests.policies import unguarded

AT_ONCE = default_text().replace("wait_seconds: 60", "wait_seconds: 0")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """One whose guard does not wait for a burst to end."""
    ledger = Ledger(database_url)
    policies.store(ledger.connection, TENANT, AT_ONCE, "registrar")
    yield ledger
    ledger.close()


def fill(ledger: Ledger, section: str = "1001", count: int = 20) -> None:
    """So many members whom the LMS has confirmed."""
    ledger.take(*(enrollment(person=f"{section}-{number}", section=section) for number in range(count)))
    ledger.settle()


def drop(ledger: Ledger, numbers: range, section: str = "1001", version: int = 2) -> None:
    ledger.take(*(enrollment("dropped", person=f"{section}-{number}", section=section, version=version) for number in numbers))


def review(ledger: Ledger) -> Review:
    return reviewing.review(ledger.connection, "canvas", ledger.policies, lambda _: True)


def tidy(ledger: Ledger) -> None:
    reviewing.tidy(ledger.connection, "canvas", lambda _: True)


def approve(ledger: Ledger, hold: Hold, actor: str = "ops", snapshot: int | None = None) -> holds.Decided | holds.Awaited | None:
    return holds.approve(ledger.connection, ledger.policies, hold.hold, snapshot or hold.snapshot, actor)


def open_holds(ledger: Ledger) -> list[Hold]:
    return holds.find(ledger.connection, "canvas", undecided=True, after=None, limit=10)


def states(ledger: Ledger) -> dict[str, int]:
    """How much work is in which state."""
    return dict(ledger.rows("select state, count(*)::int from work group by state"))


def sendable(ledger: Ledger, *people: str) -> list[str]:
    """Which calls a driver is allowed for these people."""
    mine = lease.acquire(ledger.connection, "canvas", "me", 60)
    assert mine is not None
    keys = [seat(person).seat for person in people]
    orders = intents.open_intents(ledger.connection, mine, keys, intents.new_ids(len(keys)), deadline_seconds=5, send_by=0)
    return [order.call for order in orders]


def due_now(ledger: Ledger) -> None:
    ledger.connection.execute("update work set next_at = clock_timestamp()")


def test_a_few_removals_are_let_through_and_keep_their_time(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(2))
    before = ledger.rows("select seat, next_at from work order by seat")
    assert states(ledger) == {"guarded": 2}

    assert review(ledger).passed == {"counted": 2}

    assert states(ledger) == {"pending": 2}
    assert ledger.rows("select seat, next_at from work order by seat") == before, "the add of a swap may be on its way"


def test_adds_are_never_guarded(ledger: Ledger) -> None:
    ledger.take(*(enrollment(person=str(number)) for number in range(500)))

    assert states(ledger) == {"pending": 500}
    assert review(ledger).passed == {}


def test_a_source_with_a_limit_of_its_own_is_held_and_the_others_go_on(ledger: Ledger) -> None:
    policies.store(
        ledger.connection, TENANT, AT_ONCE.replace("  tenant:\n", "  source: {quarter_hour: {most: 3}}\n  tenant:\n"), "it"
    )
    for section in ("1001", "1002"):
        fill(ledger, section, count=40)
    told = [
        *(enrollment("dropped", person=f"1001-{number}", version=2, channel="snapshot:census") for number in range(2)),
        *(enrollment("dropped", person=f"1002-{number}", section="1002", version=2, channel="ib:PSUNV") for number in range(3)),
    ]
    ledger.take(*told)
    assert review(ledger).passed == {"counted": 5}, "three of one source, two of the other"

    ledger.take(*(enrollment("dropped", person=f"1001-{number}", version=2, channel="snapshot:census") for number in (2, 3)))
    ledger.take(enrollment("dropped", person="1002-9", section="1002", version=2))
    done = review(ledger)

    [hold] = open_holds(ledger)
    assert (hold.scope, hold.key, hold.held, hold.removals, hold.active) == ("source", "snapshot:census", 2, 4, 77)
    assert (done.held, done.passed) == (2, {"counted": 1}), "what came on no channel that is known counts elsewhere"


def test_a_source_that_says_something_else_than_dropped_is_counted_as_well(ledger: Ledger) -> None:
    """A place on the waiting list gives no seat: nothing entitles to one any more."""
    policies.store(
        ledger.connection, TENANT, AT_ONCE.replace("  tenant:\n", "  source: {quarter_hour: {most: 3}}\n  tenant:\n"), "it"
    )
    fill(ledger, count=40)

    ledger.take(*(enrollment("waitlisted", person=f"1001-{number}", version=2, channel="snapshot:census") for number in range(4)))
    review(ledger)

    [hold] = open_holds(ledger)
    assert (hold.scope, hold.key, hold.held) == ("source", "snapshot:census", 4)


def test_a_removal_that_nobody_let_through_may_only_be_read(ledger: Ledger) -> None:
    """The last line: whatever state the work is in."""
    fill(ledger)
    drop(ledger, range(2))
    review(ledger)
    ledger.connection.execute("update work set state = 'pending', cleared = null where seat = %s", [seat("1001-0").seat])
    due_now(ledger)

    assert sendable(ledger, "1001-0", "1001-1") == ["read", "write"]


def test_a_feed_that_drops_a_section_is_held_and_adds_go_on(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(19))
    ledger.take(enrollment(person="newcomer"))

    assert review(ledger).held == 19

    [hold] = open_holds(ledger)
    assert (hold.scope, hold.key, hold.held, hold.removals, hold.active) == ("section", "PSUNV/1259/1001", 19, 19, 20)
    assert states(ledger) == {"held": 19, "pending": 1}


def test_what_is_held_is_not_sent_and_survives_a_restart(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(19))
    review(ledger)
    due_now(ledger)

    assert sendable(ledger, *(f"1001-{number}" for number in range(19))) == []
    assert review(ledger).passed == {}
    assert states(ledger) == {"held": 19}


def test_a_student_who_comes_back_leaves_the_hold(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(19))
    review(ledger)

    ledger.take(enrollment(person="1001-3", version=3))

    assert states(ledger) == {"held": 18}
    assert [hold.held for hold in open_holds(ledger)] == [18]


def test_a_hold_from_which_all_came_back_is_over(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(19))
    review(ledger)
    ledger.take(*(enrollment(person=f"1001-{number}", version=3) for number in range(19)))

    tidy(ledger)

    assert open_holds(ledger) == []
    assert ledger.rows("select state from hold") == [("emptied",)]


def test_an_approval_lets_go_what_was_seen_and_nothing_that_came_later(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(18))
    review(ledger)
    [seen] = open_holds(ledger)
    drop(ledger, range(18, 19))
    # Taken back and dropped again: another decision than the one that was seen.
    ledger.take(enrollment(person="1001-0", version=5))
    drop(ledger, range(1), version=6)
    review(ledger)

    assert approve(ledger, seen) == holds.Decided(approved=17, left=2)

    review(ledger)
    assert states(ledger) == {"pending": 17, "held": 2}
    assert sendable(ledger, "1001-1") == ["write"]


def test_what_was_approved_is_not_counted_again(ledger: Ledger) -> None:
    fill(ledger, count=90)
    drop(ledger, range(50))
    review(ledger)
    [hold] = open_holds(ledger)
    approve(ledger, hold)

    drop(ledger, range(50, 51))

    assert review(ledger).passed == {"counted": 1}


def test_a_large_hold_needs_two_people(ledger: Ledger) -> None:
    hold = held(ledger, two_people_above=18)

    assert isinstance(approve(ledger, hold, "ops"), holds.Awaited)
    with pytest.raises(holds.SamePerson):
        approve(ledger, hold, "ops")
    assert states(ledger) == {"held": 19}

    assert approve(ledger, hold, "desk") == holds.Decided(approved=19, left=0)
    assert ledger.rows("select state, first_actor from hold") == [("approved", None)]


def test_one_person_is_enough_up_to_the_limit(ledger: Ledger) -> None:
    assert approve(ledger, held(ledger, two_people_above=19)) == holds.Decided(approved=19, left=0)


def test_a_large_hold_is_not_approved_in_slices(ledger: Ledger) -> None:
    hold = held(ledger, two_people_above=10)
    numbers = [member.number for member in holds.members(ledger.connection, "canvas", hold.hold, 0, 100)]

    assert approve(ledger, hold, "ops", numbers[9]) == holds.Decided(approved=10, left=9)

    assert isinstance(approve(ledger, hold, "ops", numbers[10]), holds.Awaited)


def test_what_both_have_seen_goes(ledger: Ledger) -> None:
    hold = held(ledger, two_people_above=5)
    numbers = [member.number for member in holds.members(ledger.connection, "canvas", hold.hold, 0, 100)]
    approve(ledger, hold, "ops", numbers[11])

    assert approve(ledger, hold, "desk") == holds.Decided(approved=12, left=7)

    with_the_rest = open_holds(ledger)[0]
    assert with_the_rest.first_actor is None, "the rest needs two people again"


@pytest.mark.parametrize("ending", ["lapsed", "discarded"])
def test_a_first_approval_does_not_count_for_ever(ledger: Ledger, ending: str) -> None:
    hold = held(ledger, two_people_above=5)
    approve(ledger, hold, "ops")
    if ending == "lapsed":
        ledger.connection.execute("update hold set first_lapses_at = clock_timestamp()")
    else:
        holds.discard(ledger.connection, "canvas", hold.hold)

    assert isinstance(approve(ledger, hold, "desk"), holds.Awaited)
    assert states(ledger) == {"held": 19}


def held(ledger: Ledger, two_people_above: int) -> Hold:
    """A hold of 19 removals."""
    rules = AT_ONCE.replace("two_people_above: 1000", f"two_people_above: {two_people_above}")
    policies.store(ledger.connection, TENANT, rules, "registrar")
    fill(ledger)
    drop(ledger, range(19))
    review(ledger)
    return open_holds(ledger)[0]


def test_discarded_removals_stay_held_and_may_be_approved_after_all(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(19))
    review(ledger)
    [hold] = open_holds(ledger)

    holds.discard(ledger.connection, "canvas", hold.hold)

    assert open_holds(ledger) == []
    assert states(ledger) == {"held": 19}
    assert approve(ledger, hold) == holds.Decided(approved=19, left=0)
    assert ledger.rows("select state from hold") == [("approved",)]


@pytest.mark.parametrize("order", ["class first", "members first"])
def test_a_cancelled_class_goes_in_either_order_of_its_messages(ledger: Ledger, order: str) -> None:
    policies.store(ledger.connection, TENANT, default_text(), "registrar")  # a burst is counted for a minute
    fill(ledger, count=80)
    if order == "members first":
        drop(ledger, range(80))
        assert review(ledger).held == 0
    ledger.take(section_event("cancelled", version=9))
    ledger.decide_queued()

    assert review(ledger).passed == {"cancelled": 80}
    assert open_holds(ledger) == []


def test_a_large_cancelled_class_is_one_hold_that_names_the_cancellation(ledger: Ledger) -> None:
    fill(ledger, count=300)
    ledger.take(section_event("cancelled", version=9))
    ledger.decide_queued()

    review(ledger)

    assert [(hold.scope, hold.held) for hold in open_holds(ledger)] == [("cancelled_section", 300)]


def test_an_announced_cancellation_is_not_held(ledger: Ledger) -> None:
    fill(ledger, count=300)
    announce(ledger, "section", "PSUNV/1259/1001", 300)
    ledger.take(section_event("cancelled", version=9))
    ledger.decide_queued()

    assert review(ledger).passed == {"planned": 300}
    assert ledger.rows("select used from planned_change") == [(300,)]


def announce(ledger: Ledger, scope: str, key: str, most: int) -> None:
    now = datetime.now(UTC)
    window = (now - timedelta(minutes=1), now + timedelta(hours=1))
    holds.announce(ledger.connection, "canvas", uuid4(), TENANT, scope, key, window, most, "purge day", "registrar")


def test_a_renamed_id_column_is_held_and_says_so(ledger: Ledger) -> None:
    """Everybody is dropped under the old id and enrolled under a new one."""
    fill(ledger, count=30)
    now = datetime.now(UTC)
    drop(ledger, range(30))
    ledger.take(*(enrollment(person=f"0-{number}", version=3).model_copy(update={"accepted_at": now}) for number in range(30)))

    review(ledger)

    [hold] = open_holds(ledger)
    assert (hold.held, hold.gained) == (30, 30)
    assert states(ledger) == {"held": 30, "pending": 30}


def test_a_paused_guard_lets_nothing_through(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(1))
    holds.pause(ledger.connection, "canvas", "the extract of tonight looks wrong")
    assert review(ledger).passed == {}

    holds.pause(ledger.connection, "canvas", None)

    assert review(ledger).passed == {"counted": 1}


def test_a_seat_that_nobody_has_looked_at_is_read_first_and_not_counted(ledger: Ledger) -> None:
    """After a restore every seat is unknown, those that were removed years ago among them."""
    ledger.take(*(enrollment("dropped", person=f"1001-{number}") for number in range(30)))

    assert states(ledger) == {"pending": 30}
    due_now(ledger)
    assert sendable(ledger, "1001-1") == ["read"]


def test_what_is_held_survives_a_failover(ledger: Ledger) -> None:
    """Recovery has every seat read again; a removal that needs a person goes on needing one."""
    fill(ledger)
    drop(ledger, range(10))
    review(ledger)
    [hold] = open_holds(ledger)

    recovery.enter(ledger.connection, "database", 60)
    review(ledger)
    tidy(ledger)

    assert [(one.hold, one.held) for one in open_holds(ledger)] == [(hold.hold, 10)]
    due_now(ledger)
    assert sendable_calls(ledger, range(10)) == []
    ledger.connection.execute("update recovery set behind = false")
    approve(ledger, hold)
    review(ledger)
    assert sendable(ledger, "1001-1") == ["write"]


def sendable_calls(ledger: Ledger, numbers: range) -> list[str]:
    ledger.connection.execute("update recovery set behind = false")
    calls = sendable(ledger, *(f"1001-{number}" for number in numbers))
    ledger.connection.execute("update lease set expires_at = clock_timestamp()")
    return calls


def test_a_student_who_changes_their_mind_ten_times_counts_once(ledger: Ledger) -> None:
    fill(ledger, count=12)
    for turn in range(12):
        drop(ledger, range(1), version=2 + 2 * turn)
        review(ledger)
        ledger.settle()
        ledger.take(enrollment(person="1001-0", version=3 + 2 * turn))
        ledger.settle()

    assert open_holds(ledger) == []
    drop(ledger, range(1, 2))
    assert review(ledger).passed == {"counted": 1}, "nor for the next one"


def test_a_percentage_is_of_those_who_are_left(ledger: Ledger) -> None:
    """After two thirds of a class were removed with approval, the last third is all of it."""
    fill(ledger, count=60)
    drop(ledger, range(40))
    review(ledger)
    [hold] = open_holds(ledger)
    approve(ledger, hold)
    review(ledger)
    ledger.settle()

    drop(ledger, range(40, 60))

    assert review(ledger).passed == {}
    assert [one.held for one in open_holds(ledger)] == [20]


def test_a_percentage_is_of_those_who_were_there_before_the_window(ledger: Ledger) -> None:
    """Forty of sixty over a day are not yet four fifths of them."""
    fill(ledger, count=60)
    for number in range(40):
        drop(ledger, range(number, number + 1))
        review(ledger)
        ledger.settle()
        ledger.connection.execute("update removal set at = at - interval '20 minutes'")
        ledger.connection.execute("update guard set sizes_at = sizes_at - interval '20 minutes'")

    assert open_holds(ledger) == []
    assert ledger.rows("select count(*) from removal") == [(40,)]


def test_a_discarded_removal_that_is_decided_anew_stays_held(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(19))
    review(ledger)
    [hold] = open_holds(ledger)
    holds.discard(ledger.connection, "canvas", hold.hold)

    for number in range(19):
        ledger.take(enrollment("withdrawn", person=f"1001-{number}", version=5))
        assert review(ledger).passed == {}

    assert states(ledger) == {"held": 19}
    assert ledger.rows("select distinct hold from work") == [(hold.hold,)]


def test_what_is_decided_anew_during_an_approval_stays_in_the_open_hold(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(19))
    review(ledger)
    [hold] = open_holds(ledger)
    ledger.take(enrollment("withdrawn", person="1001-0", version=5))

    approve(ledger, hold)
    review(ledger)

    assert [(one.hold, one.held) for one in open_holds(ledger)] == [(hold.hold, 1)]


def test_nothing_rejoins_a_hold_that_is_over(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(19))
    review(ledger)
    ledger.connection.execute("update hold set state = 'approved', closed_at = clock_timestamp()")
    ledger.take(enrollment("withdrawn", person="1001-0", version=5))

    review(ledger)

    assert states(ledger) == {"held": 18, "pending": 1}


def test_a_pause_also_stops_what_was_let_through(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(2))
    review(ledger)
    holds.pause(ledger.connection, "canvas", "looks wrong")
    due_now(ledger)

    review(ledger)

    assert states(ledger) == {"guarded": 2}
    holds.pause(ledger.connection, "canvas", None)
    assert review(ledger).passed == {}, "they are not counted twice"
    assert states(ledger) == {"pending": 2}


def test_a_hold_takes_nothing_more_once_its_limits_are_gone(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(15))
    review(ledger)
    policies.store(ledger.connection, TENANT, unguarded(), "registrar")

    drop(ledger, range(15, 17))

    assert review(ledger).passed == {"counted": 2}
    assert states(ledger) == {"held": 15, "pending": 2}


def test_only_the_holder_of_the_lease_lets_anything_through(ledger: Ledger) -> None:
    fill(ledger)
    drop(ledger, range(2))

    done = reviewing.review(ledger.connection, "canvas", ledger.policies, lambda _: False)

    assert done.passed == {}
    assert states(ledger) == {"guarded": 2}


def test_an_empty_extract_of_a_large_term_is_one_hold(ledger: Ledger) -> None:
    """Forty thousand removals in two thousand sections, in tables that nobody has counted."""
    ledger.connection.execute(
        """insert into seat (target, seat, tenant, person, section, course, lms_section, lms_user, role, base_role, desired,
                             effect, version, policy_version, accepted_at, applied, decision)
           select 'canvas', 'seat-' || i, 'main', 'p' || i, 'PSUNV/1259/' || i % 2000, 'PSUNV/C' || i % 1000, 's', 'u',
                  'StudentEnrollment', 'StudentEnrollment', 'deleted', 'drop', 1, 1, clock_timestamp(), 'active', 2
             from generate_series(1, 40000) as i"""
    )
    ledger.connection.execute(
        """insert into work (target, seat, tenant, person, course, state, priority, next_at)
           select target, seat, tenant, person, course, 'guarded', 0, clock_timestamp() from seat where seat like 'seat-%'"""
    )
    with database.connect(ledger.url, statement_timeout_seconds=10) as connection:
        postgres.prefer_indexes(connection)
        done = reviewing.review(connection, "canvas", ledger.policies, lambda _: True)

    assert done.held == 40_000
    assert [(hold.scope, hold.held) for hold in open_holds(ledger)] == [("term", 40_000)]


async def test_a_person_sees_a_hold_and_approves_it(ledger: Ledger, tmp_path: Path) -> None:
    api = Api(ledger, tmp_path)
    fill(ledger)
    drop(ledger, range(19))
    review(ledger)

    listed = (await api.call("GET", "/holds")).json()
    number = listed["holds"][0]["hold"]
    assert listed["holds"][0]["place"] == {"institution": "PSUNV", "term": "1259", "section": "1001"}
    assert listed["holds"][0]["cause"] == (
        "19 removals within 15 minutes from a section with 20 active seats; the limit is percent 50, at_least 10."
    )
    page = (await api.call("GET", f"/holds/{number}?limit=10")).json()
    rest = (await api.call("GET", f"/holds/{number}?limit=10&after={page['next_after']}")).json()
    assert {one["person"] for one in page["members"] + rest["members"]} == {f"1001-{number}" for number in range(19)}

    answer = await api.call("POST", f"/holds/{number}/approve", json={"snapshot": page["snapshot"], "reason": "class moved away"})

    assert answer.json() == {"hold": number, "approved": 19, "left": 0}
    again = await api.call("POST", f"/holds/{number}/approve", json={"snapshot": page["snapshot"], "reason": "class moved away"})
    no = await api.call("POST", f"/holds/{number}/discard", json={"reason": "no, it is wrong"})
    assert (no.status_code, no.json()["reason"]) == (409, "approved")
    assert (again.status_code, again.json()["reason"]) == (409, "approved")
    assert [row[:3] for row in api.audit() if row[1] == "holds.approve"] == [
        ("ops", "holds.approve", "done"),
        ("ops", "holds.approve", "refused"),
    ]


async def test_two_people_approve_a_large_hold(ledger: Ledger, tmp_path: Path) -> None:
    api = Api(ledger, tmp_path)
    hold = held(ledger, two_people_above=18)
    path, asked = f"/holds/{hold.hold}/approve", {"snapshot": hold.snapshot, "reason": "class moved away"}

    first = await api.call("POST", path, json=asked)

    assert (first.status_code, first.json()["awaits"]) == (202, "a second person")
    told = (await api.call("GET", f"/holds/{hold.hold}")).json()["first_approval"]
    assert told == {"actor": "ops", "snapshot": hold.snapshot, "until": first.json()["until"]}
    same = await api.call("POST", path, json=asked)
    assert (same.status_code, same.json()["reason"]) == (409, "same_person")
    second = await api.call("POST", path, secret="desk-secret", json=asked)
    assert second.json() == {"hold": hold.hold, "approved": 19, "left": 0}
    assert [row[:3] for row in api.audit() if row[1] == "holds.approve"] == [
        ("ops", "holds.approve", "done"),
        ("ops", "holds.approve", "refused"),
        ("desk", "holds.approve", "done"),
    ]


async def test_a_planned_change_is_announced_listed_and_withdrawn(ledger: Ledger, tmp_path: Path) -> None:
    api = Api(ledger, tmp_path)
    now = datetime.now(UTC)
    asked = {
        "scope": {"term": {"institution": "PSUNV", "term": "1259"}},
        "from": now.isoformat(),
        "until": (now + timedelta(days=1)).isoformat(),
        "most": 500,
        "reason": "removal for non-payment",
    }

    made = await api.call("POST", "/planned-changes", json=asked)

    assert made.status_code == 201
    [told] = (await api.call("GET", "/removals")).json()["planned_changes"]
    assert (told["scope"], told["most"], told["used"], told["actor"]) == (asked["scope"], 500, 0, "ops")
    path = f"/planned-changes/{told['planned_change']}/withdraw"
    assert (await api.call("POST", path)).status_code == 200
    assert (await api.call("POST", path)).status_code == 404
    assert (await api.call("GET", "/removals")).json()["planned_changes"] == []


def planned(begins: str, ends: str) -> dict[str, object]:
    return {"scope": {"tenant": {}}, "from": begins, "until": ends, "most": 1, "reason": "purge day"}


async def test_nobody_approves_what_nobody_can_have_seen(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger)
    drop(ledger, range(19))
    review(ledger)
    [hold] = open_holds(ledger)

    asked = {"snapshot": hold.snapshot + 1, "reason": "whatever comes"}
    answer = await Api(ledger, tmp_path).call("POST", f"/holds/{hold.hold}/approve", json=asked)

    assert (answer.status_code, answer.json()["reason"]) == (409, "unknown_snapshot")
    assert states(ledger) == {"held": 19}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/holds/1/approve", {"reason": "no snapshot"}),
        ("/planned-changes", {"scope": {"section": {"institution": "PSUNV"}}, "most": 1}),
        (
            "/planned-changes",
            {"scope": {}, "from": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "most": 1, "reason": "why"},
        ),
        ("/planned-changes", planned("0001-01-01T00:00:00+14:00", "2026-01-02T00:00:00Z")),
        ("/planned-changes", planned("2026-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00")),
        ("/removals/pause", {"reason": ""}),
    ],
)
async def test_what_is_not_valid_is_refused(ledger: Ledger, tmp_path: Path, path: str, asked: dict[str, object]) -> None:
    answer = await Api(ledger, tmp_path).call("POST", path, json=asked)

    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_what_does_not_exist_is_not_found(ledger: Ledger, tmp_path: Path) -> None:
    api = Api(ledger, tmp_path)
    assert (await api.call("GET", "/holds/77")).status_code == 404
    assert (await api.call("GET", "/holds/x")).status_code == 404
    assert (await api.call("POST", "/holds/77/discard", json={"reason": "nothing there"})).status_code == 404
    assert (await api.call("POST", "/removals/stop", json={"reason": "no such call"})).status_code == 404
    assert (await api.call("GET", "/holds")).json()["holds"] == []
