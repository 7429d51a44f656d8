"""An in-memory Kafka: librdkafka's mock cluster, reached through the shared library inside the client's wheel.

It speaks the real protocol on 127.0.0.1 and random ports, keeps nothing on disk and forgets everything on exit. Good for the
demo and the fast tests; it says nothing about transactions, compaction, time lookup or broker-side fencing (a real Apache
Kafka answers those in CI). The API is marked experimental upstream (librdkafka ``rdkafka_mock.h``), hence the pinned client.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import confluent_kafka
from confluent_kafka import KafkaError

_RD_KAFKA_PRODUCER = 0
_NO_ERROR = 0


class BrokerError(RuntimeError):
    """The embedded broker could not be started or changed."""


class EmbeddedBroker:
    """One mock cluster in this process, alive until `close`.

    `bootstrap_servers` is what a client needs. Topics are made at the start because the mock has no admin API. The consumer
    group heartbeat is 500 ms, so that a killed member's partitions move within seconds.
    """

    PRODUCE = 0
    """A request kind for `fail_next` (Kafka protocol guide, API keys)."""
    POLICY_VIOLATION = KafkaError.POLICY_VIOLATION
    OUT_OF_ORDER_SEQUENCE_NUMBER = KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER

    def __init__(self, topics: Mapping[str, int], brokers: int = 1) -> None:
        """Start the cluster with `topics` (name → partition count)."""
        self._library = _librdkafka()
        errors = ctypes.create_string_buffer(512)
        self._handle = self._library.rd_kafka_new(_RD_KAFKA_PRODUCER, None, errors, len(errors))
        if not self._handle:
            raise BrokerError(errors.value.decode())
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, brokers)
        if not self._cluster:
            raise BrokerError("librdkafka refused to start a mock cluster")
        self._library.rd_kafka_mock_set_controller_id(self._cluster, 1)
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        self._library.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(self._cluster, 500)
        self._library.rd_kafka_mock_set_group_consumer_session_timeout_ms(self._cluster, 6000)
        for name, partitions in topics.items():
            self.create_topic(name, partitions)

    @property
    def bootstrap_servers(self) -> str:
        """Comma-separated ``host:port`` list."""
        address: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return address.decode()

    def create_topic(self, name: str, partitions: int) -> None:
        """Add a topic; raises `BrokerError` when it exists or the count is refused."""
        code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if code != _NO_ERROR:
            raise BrokerError(f"cannot create topic {name} with {partitions} partitions: error {code}")

    def set_down(self, broker_id: int = 1) -> None:
        """Refuse connections to one broker (ids count from 1), as if its process were gone."""
        self._library.rd_kafka_mock_broker_set_down(self._cluster, broker_id)

    def set_up(self, broker_id: int = 1) -> None:
        """Take connections again after `set_down`; the log is still there."""
        self._library.rd_kafka_mock_broker_set_up(self._cluster, broker_id)

    def set_round_trip(self, milliseconds: int, broker_id: int = 1) -> None:
        """Delay every answer of one broker."""
        self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker_id, milliseconds)

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Delete the records of one partition below the offset `before`, as retention would."""
        code = self._library.rd_kafka_mock_partition_delete_records(self._cluster, topic.encode(), partition, before)
        if code != _NO_ERROR:
            raise BrokerError(f"cannot trim {topic} before {before}: error {code}")

    def fail_next(self, api_key: int, errors: Sequence[int]) -> None:
        """Answer the next requests of one kind with these error codes, one each."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, len(errors), codes)

    def close(self) -> None:
        """Stop the cluster and drop its log. Safe to call twice."""
        if self._cluster:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._library.rd_kafka_destroy(self._handle)
            self._cluster = None

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


@functools.cache
def _librdkafka() -> ctypes.CDLL:
    """Load the library the client itself uses and declare the few functions we call."""
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = sorted(folder.glob("librdkafka*"))
    if not found:
        raise BrokerError(f"no librdkafka in {folder}; install confluent-kafka from a wheel")
    library = ctypes.CDLL(str(found[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[object, list[object]]] = {
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_set_controller_id": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_partition_delete_records": (number, [pointer, text, ctypes.c_int32, ctypes.c_int64]),
        "rd_kafka_mock_broker_set_down": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_up": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_rtt": (number, [pointer, ctypes.c_int32, number]),
        "rd_kafka_mock_push_request_errors_array": (None, [pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(number)]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_set_group_consumer_heartbeat_interval_ms": (None, [pointer, number]),
        "rd_kafka_mock_set_group_consumer_session_timeout_ms": (None, [pointer, number]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
