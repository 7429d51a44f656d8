"""Single promises, each through real processes from the HTTP post to Canvas."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from http import HTTPStatus

import pytest
from confluent_kafka import Consumer, TopicPartition
from defusedxml import ElementTree

from services.sandbox.broker import EmbeddedBroker
from services.sandbox.sis.truth import STUDENT, Seat, section_id
from tests.e2e.arena import Arena, announced, dropped, enrolled, eventually, one_class
from tests.e2e.conftest import MakeArena

ANA, BEN, CYRA = "9000001", "9000002", "9000003"
EMBEDDED = pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
MEBIBYTE = 1024 * 1024


def seat(emplid: str) -> Seat:
    return Seat(section_id("26101"), emplid, STUDENT)


def is_accepted(arena: Arena, emplid: str) -> bool:
    """Post an enrolment until the answer is 200, as the SIS does."""
    return arena.post(enrolled(emplid)).status_code == HTTPStatus.OK


@EMBEDDED
def test_a_broker_with_slow_acks_loses_nothing_and_makes_no_ghost(make_arena: MakeArena, embedded_broker: EmbeddedBroker) -> None:
    arena = make_arena(publisher={"ANSWER_WITHIN_SECONDS": "2", "DELIVERY_TIMEOUT_SECONDS": "1.5"})
    one_class(arena.canvas, [ANA])
    arena.start()
    assert is_accepted(arena, ANA)
    eventually(lambda: arena.state(seat(ANA)) == "active", 20, "the first add arrives")

    embedded_broker.set_round_trip(6_000)
    try:
        assert arena.post(dropped(ANA)).status_code == HTTPStatus.SERVICE_UNAVAILABLE
    finally:
        embedded_broker.set_round_trip(0)
    # The SIS has meanwhile changed its mind; what it sends again is the current state.
    again = datetime.now(UTC)
    eventually(lambda: arena.post(enrolled(ANA), stamp=again).status_code == HTTPStatus.OK, 30, "Kafka is quick again")

    eventually(arena.settled, 30, "every event is read and every seat settled")
    assert arena.state(seat(ANA)) == "active"
    ((version, published),) = arena.mirror("select version, published_version from entity where kind = 'enrollment'")
    assert arena.ledger("select version, event->>'status' from entity where kind = 'enrollment'") == [(version, "enrolled")]
    assert published == version


def test_a_committed_offset_ahead_of_the_ledger_skips_no_record(make_arena: MakeArena) -> None:
    arena = make_arena()
    one_class(arena.canvas, [ANA, BEN, CYRA])
    arena.publisher.start().await_ready()
    assert all(is_accepted(arena, emplid) for emplid in (ANA, BEN))
    commit_to_the_end(arena)

    arena.consumer.start().await_ready()
    assert is_accepted(arena, CYRA)

    eventually(lambda: all(arena.state(seat(emplid)) == "active" for emplid in (ANA, BEN, CYRA)), 40, "all three arrive")


def commit_to_the_end(arena: Arena) -> None:
    """A member of the live group that commits past everything and handles nothing."""
    topic = arena.topics.entity("enrollment")
    stranger = Consumer(arena.kafka.group_member(arena.topics.prefix) | {"auto.offset.reset": "earliest"})
    try:
        stranger.subscribe([topic])
        seen = 0
        deadline = time.monotonic() + 30
        while seen < 2:
            assert time.monotonic() < deadline, "the stranger reads what was published"
            message = stranger.poll(0.5)
            seen += message is not None and not message.error()
        ends = [
            TopicPartition(topic, each.partition, stranger.get_watermark_offsets(each, timeout=10)[1])
            for each in stranger.assignment()
        ]
        stranger.commit(offsets=ends, asynchronous=False)
    finally:
        stranger.close()


XML = {"content-type": "text/xml"}
BAD_MESSAGES = {
    "malformed_xml": b"<ZZ_ENRL_SYNC><MsgData>",
    "dtd": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><ZZ_ENRL_SYNC><MsgData/></ZZ_ENRL_SYNC>',
    "unknown_record": b'<X><MsgData><Transaction><ZZ_NONE class="R"><A>1</A></ZZ_NONE></Transaction></MsgData></X>',
    "too_large": b"<X>" + b" " * (10 * MEBIBYTE) + b"</X>",
}


@EMBEDDED
def test_bad_messages_get_their_answers_show_in_metrics_and_delay_nothing(make_arena: MakeArena) -> None:
    arena = make_arena()
    one_class(arena.canvas, [ANA, BEN])
    arena.start()
    publisher = arena.publisher

    for reason, body in BAD_MESSAGES.items():
        answer = arena.post_bytes(body, XML)
        assert answer.status_code == HTTPStatus.OK, reason
        assert ElementTree.fromstring(answer.content).tag == "IBResponse"
        assert publisher.metric("sis_quarantined_total", source="peoplesoft", reason=reason) == 1, reason
        begun = time.monotonic()
        assert is_accepted(arena, ANA)
        assert time.monotonic() - begun < 1, reason
    # One row with a code that nobody knows: quarantined alone, its neighbour goes on.
    assert arena.post(enrolled(ANA, STDNT_ENRL_STATUS="Q"), enrolled(BEN)).status_code == HTTPStatus.OK
    assert publisher.metric("sis_quarantined_total", reason="unknown_code") == 1
    refused = arena.post_bytes(b"<X/>", XML, password="wrong")
    assert refused.status_code == HTTPStatus.UNAUTHORIZED
    assert publisher.metric("sis_intake_requests_total", outcome="rejected_auth") == 1

    eventually(lambda: arena.state(seat(ANA)) == arena.state(seat(BEN)) == "active", 20, "the good rows arrive")
    reasons = {reason for (reason,) in arena.mirror("select reason from quarantine")}
    assert reasons == BAD_MESSAGES.keys() | {"unknown_code"}


def test_a_dead_seat_is_applied_when_its_offset_is_replayed(make_arena: MakeArena) -> None:
    arena = make_arena()
    school_class = one_class(arena.canvas, [ANA, BEN])
    arena.canvas.objects(courses=[{"sis_course_id": "1273-009001", "state": "completed"}])
    arena.start()
    assert arena.post(announced(school_class), operation="ZZ_CLASS_SYNC").status_code == HTTPStatus.OK
    assert is_accepted(arena, ANA)
    eventually(lambda: arena.ledger("select state from work") == [("dead",)], 30, "Canvas takes nobody into a concluded course")
    writes = len(arena.canvas.writes())

    arena.canvas.objects(courses=[{"sis_course_id": "1273-009001", "state": "available"}])
    time.sleep(2)
    assert len(arena.canvas.writes()) == writes, "a dead seat is left alone until somebody asks"
    query = "select topic, partition, \"offset\" from entity where kind = 'enrollment'"
    ((topic, partition, offset),) = arena.ledger(query)
    arena.replay({"offsets": {"topic": topic, "partition": partition, "from": offset, "to": offset}})

    eventually(lambda: arena.state(seat(ANA)) == "active", 20, "the seat is applied")
    eventually(arena.settled, 20, "nothing is left to do")
    (replay, *_) = arena.operate("GET", "/replays").json()["replays"]
    report = arena.operate("GET", f"/replays/{replay['replay']}").json()
    assert [line["verdict"] for line in report["lines"]] == ["applied"]


def test_a_trace_tells_the_whole_story(make_arena: MakeArena) -> None:
    arena = make_arena()
    one_class(arena.canvas, [ANA])
    arena.start()
    assert is_accepted(arena, ANA)
    eventually(lambda: arena.state(seat(ANA)) == "active", 20, "the add arrives")
    eventually(arena.settled, 20, "nothing is left to do")

    asked = {"person": ANA, "section": {"institution": "UNVTC", "term": "1273", "section": "26101"}}
    answer = arena.operate("POST", "/trace", asked)

    assert answer.status_code == HTTPStatus.OK
    for what in ("received", "decided", "settled"):
        assert f'"{what}"' in answer.text


@EMBEDDED
def test_services_end_in_order_when_asked_to(make_arena: MakeArena) -> None:
    arena = make_arena()
    one_class(arena.canvas, [ANA])
    arena.start()
    assert is_accepted(arena, ANA)
    eventually(lambda: arena.state(seat(ANA)) == "active", 20, "the add arrives")
    assert arena.consumer.stop() == 0
    assert arena.lease_owner() is None
    assert arena.publisher.stop() == 0
