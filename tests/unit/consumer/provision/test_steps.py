"""Which step is next towards an object, whose word counts, and what each outcome does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.consumer.provision.steps import (
    Change,
    Known,
    Make,
    Nothing,
    Verdict,
    fingerprint,
    inherited,
    next_step,
    react,
    seen_so,
)
from services.consumer.provision.wanting import Unwanted, Wish
from services.consumer.targets.objects import Attribute, NoParent, ObjectOutcome, ShownObject, WantedObject
from services.consumer.targets.port import (
    IdentityMismatch,
    NoPermission,
    Refused,
    ServerFault,
    Throttled,
    Unknown,
    WrongShape,
)

PERSON = WantedObject("person", "0009001", {"name": "Clara Schumann", "login": "0009001", "state": "active"})
SECTION = WantedObject("section", "S-1", {"name": "MUS 201 1001"}, "C-1")
RENAME: frozenset[Attribute] = frozenset({"name"})


def shown(wanted: WantedObject, **values: str) -> ShownObject:
    """As wanted, but for these."""
    return ShownObject("7", {**wanted.values, **values})  # type: ignore[dict-item]


def ours(wanted: WantedObject, **values: str) -> Known:
    """We wrote these last."""
    written = shown(wanted, **values).values
    return Known(origin="ours", confirmed={name: fingerprint(wanted, name, value) for name, value in written.items()})


FOUND = Known(origin="found")


@pytest.mark.parametrize(
    ("wanted", "seen", "known", "step"),
    [
        (SECTION, shown(SECTION), Known(), Nothing()),
        # Renamed in the SIS: ours as long as nobody else has changed it.
        (SECTION, shown(SECTION, name="old"), ours(SECTION, name="old"), Change(RENAME, gently=False)),
        (SECTION, shown(SECTION, name="by a teacher"), ours(SECTION, name="old"), Nothing(("name",))),
        (SECTION, shown(SECTION, name="theirs"), FOUND, Nothing(("name",))),
        (PERSON, shown(PERSON, name="Clara Wieck"), ours(PERSON, name="Clara Wieck"), Change(RENAME, gently=False)),
        (PERSON, shown(PERSON, name="Clara W."), ours(PERSON, name="Clara Wieck"), Nothing(("name",))),
        (PERSON, shown(PERSON, name="Clara Wieck"), FOUND, Change(RENAME, gently=True)),
        # Another feed made the account, with a login of its own kind.
        (PERSON, shown(PERSON, login="cwieck"), FOUND, Nothing(("login",))),
        (PERSON, shown(PERSON, login="old"), ours(PERSON, login="old"), Change(frozenset({"login"}), gently=False)),
        # Somebody else suspended them.
        (PERSON, shown(PERSON, state="suspended"), FOUND, Nothing(("state",))),
        (PERSON, shown(PERSON, state="suspended"), ours(PERSON, state="active"), Nothing(("state",))),
        (PERSON, shown(PERSON, state="suspended"), ours(PERSON, state="suspended"), Change(frozenset({"state"}), gently=False)),
    ],
)
def test_only_what_is_ours_is_changed(wanted: WantedObject, seen: ShownObject, known: Known, step: Change | Nothing) -> None:
    told: frozenset[Attribute] = RENAME if wanted.kind == "person" else frozenset()
    assert next_step(Wish(wanted, told=told), seen, known) == step


def test_what_the_sis_tells_is_followed_where_somebody_else_made_it_and_what_the_policy_fixes_is_not() -> None:
    seen = shown(PERSON, name="Clara Wieck", login="cwieck")
    both: frozenset[Attribute] = frozenset({"name", "login"})
    assert next_step(Wish(PERSON, told=both), seen, FOUND) == Change(both, gently=True)
    assert next_step(Wish(PERSON, told=both, fixed=RENAME), seen, FOUND) == Change(frozenset({"login"}), gently=True)


def test_a_removed_person_is_suspended_whoever_made_the_account() -> None:
    gone = Wish(WantedObject("person", "0009001", {"state": "suspended"}), unmade=Unwanted("removed"))
    assert next_step(gone, ShownObject("7", {"state": "active"}), FOUND) == Change(frozenset({"state"}), gently=False)


def test_after_a_lost_answer_what_we_may_have_written_is_still_ours() -> None:
    doubtful = replace(ours(SECTION, name="old"), suspect=True)
    assert next_step(Wish(SECTION), shown(SECTION, name="older"), doubtful) == Change(RENAME, gently=False)
    agreed = seen_so(SECTION, shown(SECTION), Nothing(), doubtful)
    assert agreed.confirmed == {"name": fingerprint(SECTION, "name", "MUS 201 1001")}


def test_what_was_made_with_a_lost_answer_is_ours_when_it_is_found() -> None:
    found = seen_so(SECTION, shown(SECTION), Nothing(), Known(making=True))
    assert (found.origin, found.state) == ("ours", "settled")
    assert seen_so(SECTION, shown(SECTION), Nothing(), Known()).origin == "found"


def test_nothing_is_settled_while_a_call_may_still_land() -> None:
    assert seen_so(SECTION, shown(SECTION), Nothing(), Known(suspect=True, doubt=True)).state == "suspect"
    assert react(Wish(SECTION), Make(), shown(SECTION), Known(suspect=True, doubt=True), 0).state == "suspect"
    assert seen_so(SECTION, shown(SECTION), Nothing(), Known(suspect=True)).state == "settled"


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (shown(SECTION), ("settled", None)),
        (NoParent("course"), ("waiting", "no_course")),
        (Throttled(), ("pending", None)),
        (NoPermission(whole_token=True), ("pending", None)),
        (NoPermission(whole_token=False), ("retrying", "permission")),
        (Refused("login_taken"), ("retrying", "refused:login_taken")),
        (ServerFault("http_503"), ("retrying", "server_fault:http_503")),
        (Unknown("timeout"), ("retrying", "unknown:timeout")),
        (WrongShape("not_json"), ("retrying", "wrong_shape:not_json")),
        (IdentityMismatch("object"), ("retrying", "identity_mismatch")),
    ],
)
def test_each_outcome_has_one_reaction(outcome: ObjectOutcome, expected: tuple[str, str | None]) -> None:
    verdict = react(Wish(SECTION), Make(), outcome, Known(), 0)
    assert (verdict.state, verdict.reason) == expected
    doubtful = isinstance(outcome, ServerFault | Unknown | WrongShape | IdentityMismatch)
    assert (verdict.late, verdict.making) == (doubtful, doubtful), "what may have been made is looked for, and once more later"
    assert verdict.exists == isinstance(outcome, ShownObject)


def test_what_is_refused_is_looked_for_once_more_before_a_person_has_to() -> None:
    """Another feed may have made it since the look."""
    again = react(Wish(SECTION), Make(), Refused("sis_id_taken"), Known(attempts=1), 0)
    assert (again.state, again.reason) == ("refused", "refused:sis_id_taken")
    change = react(Wish(SECTION), Change(RENAME, gently=False), Refused("invalid"), Known(), 0)
    assert change.state == "refused"


def test_a_read_that_fails_leaves_no_doubt() -> None:
    verdict = react(Wish(SECTION), None, ServerFault("timeout"), Known(), 0)
    assert (verdict.late, verdict.making) == (False, False)


def test_the_first_lost_answer_is_read_back_at_once_and_mismatches_end() -> None:
    assert react(Wish(SECTION), Make(), Unknown("timeout"), Known(), 0).delay_seconds == 0
    assert (react(Wish(SECTION), Make(), Unknown("timeout"), Known(attempts=1), 0).delay_seconds or 0) > 0
    assert react(Wish(SECTION), Make(), IdentityMismatch("object"), Known(attempts=2), 0).state == "refused"


def test_a_yes_that_did_nothing_is_not_believed() -> None:
    known = ours(SECTION, name="old")
    verdict = react(Wish(SECTION), Change(RENAME, gently=False), shown(SECTION, name="old"), known, 0)
    assert (verdict.state, verdict.reason) == ("retrying", "no_effect")
    assert verdict.confirmed == {}


def test_what_stays_by_hand_is_listed_and_settled() -> None:
    verdict = react(Wish(PERSON), Change(RENAME, gently=True), shown(PERSON, name="By Hand"), FOUND, 0)
    assert (verdict.state, verdict.kept, verdict.did) == ("settled", ("name",), None)


def test_one_call_after_the_other_until_nothing_is_ours_to_do() -> None:
    known = ours(PERSON, name="Clara Wieck", login="old")
    both: frozenset[Attribute] = frozenset({"name", "login"})
    first = react(Wish(PERSON), Change(both, gently=False), shown(PERSON, login="old"), known, 0)
    assert first.state == "pending"
    assert first.confirmed == {"name": fingerprint(PERSON, "name", "Clara Schumann")}
    second = react(Wish(PERSON), Change(both, gently=False), shown(PERSON), known, 0)
    assert second == Verdict("settled", exists=True, lms_id="7", origin="ours", confirmed=second.confirmed, did="changed")


def test_an_account_that_goes_to_another_id_takes_along_what_is_still_ours() -> None:
    heir = replace(PERSON, sis_id="0009002")
    written = inherited(PERSON, shown(PERSON, login="by hand"), ours(PERSON), "0009002")
    assert written == {name: fingerprint(heir, name, PERSON.values[name]) for name in ("name", "state")}
    assert inherited(PERSON, shown(PERSON), FOUND, "0009002") == {}
