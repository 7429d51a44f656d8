"""The Kafka log behind a narrow port: records in, one outcome per record out.

librdkafka reports deliveries to whoever polls. A thread polls; it collects reports in a deque and wakes the loop once per
burst, which costs less than a wake-up per report when many are in flight and nothing when there is one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from services.kit.kafka import Configuration, KafkaSettings

log = structlog.get_logger()

_SLICE = 500
"""Records handed over per turn of the loop: 5,000 at once would hold it for 20 ms and more."""
_CONTACT_SECONDS = 15.0
_REPORT_MARGIN_SECONDS = 2.0
"""A delivery report that is so much later than the delivery timeout will not come: librdkafka times out once a second."""
_RENEW_EVERY_SECONDS = 30.0
_REBUILDS = 3
_REBUILD_WINDOW_SECONDS = 600.0
_PERMANENT = {
    KafkaError.MSG_SIZE_TOO_LARGE: "too_large",
    KafkaError.RECORD_LIST_TOO_LARGE: "too_large",
    KafkaError.INVALID_RECORD: "refused",
    KafkaError.POLICY_VIOLATION: "refused",
    KafkaError.INVALID_TIMESTAMP: "refused",
}
"""What no repetition cures. Missing topics and permissions are not here: a person cures them, and then the event may go."""


_STALE = frozenset({KafkaError._MSG_TIMED_OUT, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART})
"""What a producer says of a topic that was deleted and made anew. librdkafka believes that leader epochs only grow: whoever has
seen a later one of the old topic takes the new leaders for stale news, and nothing it sends arrives any more."""


class Record(NamedTuple):
    """What Kafka gets."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


class Delivered(NamedTuple):
    """Acknowledged by all in-sync replicas."""

    partition: int
    offset: int


class Refused(NamedTuple):
    """Not acknowledged. Unless `permanent`, the record may be in the log all the same (a lost acknowledgement)."""

    reason: str
    """``kafka``, ``overload``, ``too_large`` or ``refused``."""
    permanent: bool = False


Outcome = Delivered | Refused


class EventLog(Protocol):
    """Where events go. Safe to call from the loop only."""

    async def send(self, records: Sequence[Record]) -> list[Outcome]:
        """Hand over all records and wait for the outcome of each; bounded by the delivery timeout, never raises."""
        ...

    async def send_alone(self, record: Record) -> Outcome:
        """Like `send`, in a batch of its own: Kafka refuses whole batches, this one's outcome is the record's."""
        ...


class KafkaLog:
    """`EventLog` over an idempotent producer. A producer that has become unusable is replaced, three times in ten minutes.

    What does not heal that way is given up for good: everything is refused from then on, and `alive` says so. One that lets
    records time out while Kafka answers may have an old view of the topics: it is renewed, twice a minute at most, without end.
    """

    def __init__(self, settings: KafkaSettings, delivery_timeout_ms: int, probe_topic: str) -> None:
        self._configuration = settings.producer(delivery_timeout_ms)
        self._report_within_seconds = delivery_timeout_ms / 1000 + _REPORT_MARGIN_SECONDS
        self._probe_topic = probe_topic
        self._lock = threading.Lock()
        self._reports: deque[tuple[_Batch, int, Outcome]] = deque()
        self._awake = False
        self._stopping = threading.Event()
        self._unusable = threading.Event()
        self._stale = threading.Event()
        self._renewed_at = 0.0
        self._contact: float | None = None
        self._rebuilds: deque[float] = deque(maxlen=_REBUILDS)
        self._given_up = False
        self._alone = asyncio.Lock()

    async def start(self) -> None:
        """Build the producer and start polling; does not wait for Kafka."""
        self._loop = asyncio.get_running_loop()
        self._producer = _producer(self._configuration, self._on_error)
        self._thread = threading.Thread(target=self._poll, name="kafka-reports", daemon=True)
        self._thread.start()
        self._prober = asyncio.create_task(self._probe())

    async def stop(self, flush_seconds: float) -> None:
        """Wait so long for what is under way, then let go of it; the outbox still has it."""
        self._prober.cancel()
        with suppress(KafkaException):
            await asyncio.to_thread(self._producer.flush, flush_seconds)
        await asyncio.to_thread(_let_go, self._producer)
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, 5)
        self._drain()

    def ready(self) -> bool:
        """Kafka has answered lately and the producer is usable."""
        return self._in_contact() and not self._unusable.is_set()

    def _in_contact(self) -> bool:
        return self._contact is not None and time.monotonic() - self._contact < _CONTACT_SECONDS

    def alive(self) -> bool:
        """False when replacing the producer did not help: a new process has to try."""
        return not self._given_up

    async def send(self, records: Sequence[Record]) -> list[Outcome]:
        batch = _Batch(len(records), self._loop.create_future())
        for start in range(0, len(records), _SLICE):
            if start:
                await asyncio.sleep(0)
            with self._lock:  # the poll thread may be replacing the producer
                for number in range(start, min(start + _SLICE, len(records))):
                    self._produce(self._producer, records[number], batch, number)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._report_within_seconds):
                await asyncio.shield(batch.finished)
        return batch.outcomes()

    async def send_alone(self, record: Record) -> Outcome:
        async with self._alone:
            return await asyncio.to_thread(_send_with_a_producer_of_its_own, self._configuration, record)

    def _produce(self, producer: Producer, record: Record, batch: _Batch, number: int) -> None:
        try:
            producer.produce(
                record.topic, record.value, record.key, headers=record.headers, on_delivery=partial(self._report, batch, number)
            )
        except BufferError:
            batch.settle(number, Refused("overload"))
        except KafkaException as error:
            batch.settle(number, self._refused(error.args[0]))
        except (TypeError, ValueError):  # what the client cannot even take, no repetition cures
            batch.settle(number, Refused("refused", permanent=True))

    def _refused(self, error: KafkaError) -> Refused:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._unusable.set()
        if error.code() in _STALE:
            self._stale.set()
        return _refused(error)

    # --- the poll thread ----------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        while not self._stopping.is_set():
            try:
                self._serve()
            except Exception as error:  # a thread that ends unseen would leave every request waiting
                self._give_up(error)
                self._stopping.wait(0.1)

    def _serve(self) -> None:
        try:
            self._producer.poll(0.1)
        except KafkaException as error:  # a producer in fatal state raises it from here
            self._refused(error.args[0])
            self._stopping.wait(0.1)
        if self._unusable.is_set() and not self._given_up:
            self._replace()
        elif self._stale.is_set() and self._in_contact() and time.monotonic() >= self._renewed_at + _RENEW_EVERY_SECONDS:
            self._renew()

    def _give_up(self, error: Exception | None = None) -> None:
        if not self._given_up:
            self._given_up = True
            self._unusable.set()
            log.error("producer_given_up", count=len(self._rebuilds), exc_info=error)

    def _report(self, batch: _Batch, number: int, error: KafkaError | None, message: Message) -> None:
        """A delivery report; runs in the poll thread, or in the one that flushes."""
        if error is None:
            self._contact = time.monotonic()
            outcome: Outcome = Delivered(message.partition() or 0, message.offset() or 0)
        else:
            outcome = self._refused(error)
        self._reports.append((batch, number, outcome))
        if not self._awake:
            self._awake = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._awake = False  # before emptying: a report that comes now wakes us again
        reports = self._reports
        while reports:
            batch, number, outcome = reports.popleft()
            batch.settle(number, outcome)

    def _on_error(self, error: KafkaError) -> None:
        """Connection troubles are librdkafka's to repair; a fatal error is ours."""
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._unusable.set()

    def _replace(self) -> None:
        now = time.monotonic()
        if len(self._rebuilds) == _REBUILDS and now - self._rebuilds[0] < _REBUILD_WINDOW_SECONDS:
            self._give_up()
            return
        self._rebuilds.append(now)
        log.error("producer_replaced", count=len(self._rebuilds))
        self._exchange()
        self._unusable.clear()

    def _renew(self) -> None:
        log.warning("producer_renewed")
        self._exchange()
        self._renewed_at = time.monotonic()
        self._stale.clear()

    def _exchange(self) -> None:
        with self._lock:
            broken, self._producer = self._producer, _producer(self._configuration, self._on_error)
        _let_go(broken)  # reports what was under way as refused; the outbox sends it again

    # --- readiness ------------------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Ask for metadata while nothing else proves that Kafka is there."""
        while True:
            try:
                await asyncio.to_thread(self._producer.list_topics, self._probe_topic, 3)
                self._contact = time.monotonic()
            except KafkaException as error:
                log.warning("kafka_unreachable", code=error.args[0].code())
            await asyncio.sleep(_CONTACT_SECONDS / 3)


class _Batch:
    """The records of one `send`, finished when each has its outcome. Touched by the loop only."""

    def __init__(self, size: int, finished: asyncio.Future[None]) -> None:
        self._outcomes: list[Outcome] = [Refused("kafka")] * size
        self._open = size
        self.finished = finished
        self._finish()

    def outcomes(self) -> list[Outcome]:
        """Of all records; not acknowledged is what has none yet."""
        return list(self._outcomes)

    def settle(self, number: int, outcome: Outcome) -> None:
        self._outcomes[number] = outcome
        self._open -= 1
        if not self._open:
            self._finish()

    def _finish(self) -> None:
        if self._open == 0 and not self.finished.done():
            self.finished.set_result(None)


def _producer(configuration: Configuration, on_error: Any) -> Producer:
    # A broker that is down makes librdkafka log 19 lines a second; the metrics and the probe say it once.
    quiet = logging.getLogger("librdkafka")
    return Producer(configuration | {"log_level": 2}, error_cb=on_error, logger=quiet)


def _let_go(producer: Producer) -> None:
    with suppress(KafkaException):
        producer.purge()
        producer.flush(1)


def _send_with_a_producer_of_its_own(configuration: Configuration, record: Record) -> Outcome:
    outcomes: list[Outcome] = []

    def report(error: KafkaError | None, message: Message) -> None:
        outcomes.append(_refused(error) if error else Delivered(message.partition() or 0, message.offset() or 0))

    producer = _producer(configuration, lambda _error: None)
    try:
        producer.produce(record.topic, record.value, record.key, headers=record.headers, on_delivery=report)
        producer.flush(float(configuration["delivery.timeout.ms"]) / 1000 + 1)
    except KafkaException as error:
        return _refused(error.args[0])
    return outcomes[0] if outcomes else Refused("kafka")


def _refused(error: KafkaError) -> Refused:
    reason = _PERMANENT.get(error.code())
    return Refused(reason, permanent=True) if reason else Refused("kafka")
