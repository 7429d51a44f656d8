"""Replaying a settled system: how fast it is looked through, and that the LMS hears nothing of it."""

from __future__ import annotations

import time
from typing import Any

import httpx

from bench import seeding
from bench.figures import Result
from bench.ground import Ground, Site
from bench.intake import Feed
from services.sandbox.demo.system import Service
from services.sandbox.sis.school import INSTITUTION, TERM

METHOD = """\
{events:,} events about {seats:,} seats are delivered to a Canvas of 0 ms until no work is left. Then the whole enrollment
topic is replayed, then the term, each by a plan and its application. Canvas counts every call."""
_SECONDS = 600


def run(ground: Ground, quick: bool) -> Result:
    """The scenario."""
    seats, events = (2_000, 4_000) if quick else (20_000, 100_000)
    result = Result(
        "Replay", METHOD.format(events=events, seats=seats), ["scope", "records or seats", "a second", "calls", "work left"]
    )
    with ground.site("replay", consumer={"MAX_IN_FLIGHT": "50", "DEAD_LETTER_LIMIT": "1000"}) as site:
        consumer = _settled(site, seats, events)
        for name, scopes in _scopes(site).items():
            before = site.canvas.counts()["calls"]
            began = time.monotonic()
            done = sum(_replay(site, consumer, scope) for scope in scopes)
            seconds = time.monotonic() - began
            calls = int(site.canvas.counts()["calls"] - before)
            work = _work(site)
            result.rows.append([name, f"{done:,}", f"{done / seconds:,.0f}", str(calls), str(work)])
            result.expect(f"{name}: no call, no work", f"{calls} calls, {work} work rows", calls == work == 0)
    return result


def _settled(site: Site, seats: int, events: int) -> Service:
    site.prepare_ledger()
    site.make_topics(*site.topics.all())
    with site.ledger() as ledger:
        seeding.settle(ledger, 0, seats)
    site.canvas.seed(seeding.LMS_SECTION, seats)
    Feed(site).produce(events, seats)
    consumer = site.system.consumer().start().await_ready(60)
    deadline = time.monotonic() + _SECONDS
    while consumer.metric("sis_consumer_lag_records") or _work(site) or not _read(site, events):
        if time.monotonic() > deadline:
            raise TimeoutError("the system does not settle")
        time.sleep(1)
    return consumer


def _work(site: Site) -> int:
    with site.ledger() as ledger:
        row = ledger.execute("select count(*) from work").fetchone()
    return int(row[0]) if row else 0


def _read(site: Site, events: int) -> bool:
    with site.ledger() as ledger:
        row = ledger.execute("select coalesce(sum(next), 0) from intake_offset").fetchone()
    return row is not None and int(row[0]) >= events


def _scopes(site: Site) -> dict[str, list[dict[str, Any]]]:
    topic = site.topics.entity("enrollment")
    with site.ledger() as ledger:
        ends = ledger.execute('select "partition", next from intake_offset where topic = %s and next > 0', [topic]).fetchall()
    term = {"institution": INSTITUTION, "term": TERM}
    return {
        "every offset": [{"offsets": {"topic": topic, "partition": number, "from": 0, "to": end - 1}} for number, end in ends],
        "the term": [{"term": term}],
    }


def _replay(site: Site, consumer: Service, scope: dict[str, Any]) -> int:
    """Plan, apply, and wait; how much was looked at."""
    headers = {"authorization": f"Bearer {site.system.operator_token}"}
    with httpx.Client(base_url=consumer.url, headers=headers, trust_env=False, timeout=60) as client:
        plan = _ended(client, client.post("/replays", json={"scope": scope}))
        applied = client.post(f"/replays/{plan['replay']}/apply", json={"digest": plan["digest"]})
        return int(_ended(client, applied)["done"])


def _ended(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    answer.raise_for_status()
    deadline = time.monotonic() + _SECONDS
    while True:
        report: dict[str, Any] = client.get(answer.headers["location"], params={"limit": 1}).raise_for_status().json()
        if report["state"] == "done":
            return report
        if report["state"] != "running" or time.monotonic() > deadline:
            raise RuntimeError(f"the replay is {report['state']}: {report['reason']}")
        time.sleep(0.2)
