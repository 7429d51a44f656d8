"""Every metric of the publisher: name, kind, labels (closed sets, never an id) and meaning."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One registry per process; tests make their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of_intake()
        self._of_sources()
        self._of_snapshots()
        self._of_log()
        self._of_mirror()

    def _of_intake(self) -> None:
        self.requests = Counter(
            "sis_intake_requests_total",
            "Deliveries by how they were answered",
            # accepted, ping, quarantined, rejected_auth, rejected_schema, too_large, too_slow, unavailable, held
            ["source", "outcome"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "sis_intake_seconds", "From the first byte to the answer", ["source"], buckets=SECONDS, registry=self.registry
        )
        self.unavailable = Counter(
            "sis_intake_unavailable_total",
            "Deliveries that were told to come again, by reason",
            ["source", "reason"],  # kafka, database, overload, recovering, stopping, deadline, busy, disk
            registry=self.registry,
        )
        self.requests_in_hand = Gauge("sis_intake_requests_in_hand", "Deliveries not answered yet", registry=self.registry)
        self.body_bytes_in_hand = Gauge(
            "sis_intake_body_bytes_in_hand", "Bytes of the bodies of deliveries not answered yet", registry=self.registry
        )
        self.extract_bytes_in_hand = Gauge(
            "sis_intake_extract_bytes_in_hand", "Bytes on disk of full extracts not answered yet", registry=self.registry
        )

    def _of_sources(self) -> None:
        self.last_message = Gauge(
            "sis_source_last_message_timestamp_seconds", "When a source last delivered", ["source"], registry=self.registry
        )
        self.channel_last = Gauge(
            "sis_channel_last_message_timestamp_seconds",
            "When an expected channel last delivered, to whichever publisher; 0: never",
            ["channel"],  # those of SOURCE_CADENCE_FILE
            registry=self.registry,
        )
        self.channel_silent = Gauge(
            "sis_channel_silent",
            "1 while an expected channel has been silent for longer than it should be in its active hours",
            ["channel"],  # those of SOURCE_CADENCE_FILE
            registry=self.registry,
        )
        self.rows = Counter(
            "sis_source_rows_total",
            "Source rows by what they did",
            ["source", "result"],  # changed, unchanged, quarantined
            registry=self.registry,
        )
        self.order_ambiguous = Counter(
            "sis_order_ambiguous_total", "Rows whose order was decided by arrival", ["source"], registry=self.registry
        )
        self.quarantined = Counter(
            "sis_quarantined_total", "Messages or rows put into quarantine", ["source", "reason"], registry=self.registry
        )

    def _of_snapshots(self) -> None:
        self.snapshots = Counter(
            "sis_snapshots_total",
            "Full extracts by what became of them, and why",
            ["outcome", "reason"],  # applied; held: shrunk; refused: see docs/snapshots.md
            registry=self.registry,
        )
        self.snapshots_open = Gauge(
            "sis_snapshots_open",
            "Full extracts that are held for a person, or are being applied",
            ["state"],
            registry=self.registry,
        )

    def _of_log(self) -> None:
        self.events = Counter("sis_events_published_total", "Events acknowledged by Kafka", ["kind"], registry=self.registry)
        self.publish_failures = Counter(
            "sis_publish_failures_total", "Events that Kafka did not acknowledge", ["reason"], registry=self.registry
        )
        self.outbox_oldest = Gauge(
            "sis_outbox_oldest_age_seconds", "Age of the oldest event that Kafka has not acknowledged", registry=self.registry
        )
        self.outbox_dead = Gauge("sis_outbox_dead", "Events that Kafka refused for good", registry=self.registry)
        self.outbox_waiting = Gauge(
            "sis_outbox_waiting",
            "Events that Kafka has not acknowledged yet, as the last sweep counted them",
            registry=self.registry,
        )

    def _of_mirror(self) -> None:
        self.unfoldable = Gauge(
            "sis_entities_unfoldable", "Entities of whose newest rows no event could be made", registry=self.registry
        )
        self.fold_seconds = Histogram(
            "sis_mirror_transaction_seconds", "One group commit of the mirror", buckets=SECONDS, registry=self.registry
        )
        self.recovering = Gauge("sis_mirror_recovering", "1 while the mirror takes its history back", registry=self.registry)
        self.digest_age = Gauge(
            "sis_digest_age_seconds", "Since the last complete round of digests was emitted", registry=self.registry
        )
        self.returns = Counter(
            "sis_returns_total",
            "What ledgers asked for or gave back, by what became of it",
            ["what"],  # republished and taken_back (entities), scope, refused (records)
            registry=self.registry,
        )
