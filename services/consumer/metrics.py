"""Every metric of the consumer: name, kind, labels (closed sets, never an id) and meaning."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

FRESHNESS_SECONDS = (0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)
CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One registry per process; tests make their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of_intake()
        self._of_agreement()
        self._of_seats()
        self._of_guard()
        self._of_rosters()
        self._of_objects()
        self._of_overrides()
        self._of_calls()
        self._of_operators()

    def _of_intake(self) -> None:
        self.events = Counter(
            "sis_events_total",
            "Records read, by what became of them",
            ["kind", "result"],  # taken, superseded, duplicate, undecodable, parked, hash_alarm
            registry=self.registry,
        )
        self.intake_seconds = Histogram(
            "sis_intake_transaction_seconds", "One ledger transaction", buckets=CALL_SECONDS, registry=self.registry
        )
        self.decisions = Counter(
            "sis_decisions_total",
            "Seats decided, by what has to be done",
            ["effect"],  # add, drop, update, none
            registry=self.registry,
        )
        self.assigned = Gauge("sis_consumer_assigned_partitions", "Partitions this process reads", registry=self.registry)
        self.lag = Gauge("sis_consumer_lag_records", "Records not read yet", ["topic"], registry=self.registry)
        self.poll_age = Gauge("sis_consumer_poll_age_seconds", "Since the intake loop last turned", registry=self.registry)
        self.rebalances = Counter("sis_rebalances_total", "Assignments and revocations", ["what"], registry=self.registry)
        self.recovery = Gauge("sis_ledger_recovery", "1 while the ledger reads before it writes", registry=self.registry)
        self.offset_conflicts = Counter(
            "sis_offset_conflicts_total", "Batches abandoned because the stored offset did not fit", registry=self.registry
        )
        self.log_faults = Counter(
            "sis_log_faults_total",
            "What happened to the log, or to the ledger under it, by partition that it was noticed in",
            ["reason"],  # starting.Loss, topic_missing
            registry=self.registry,
        )
        self.stopped = Gauge(
            "sis_intake_stopped", "1 while too many records cannot be used, and nothing is read", registry=self.registry
        )
        self.letters_waiting = Gauge(
            "sis_dead_letter_partitions_waiting",
            "Partitions that wait until Kafka takes a dead letter",
            registry=self.registry,
        )
        self.parked = Gauge("sis_parked_records", "Records that wait for a newer reader", registry=self.registry)
        self.parked_oldest = Gauge("sis_parked_oldest_seconds", "Since the longest of them waits", registry=self.registry)

    def _of_agreement(self) -> None:
        self.digest_age = Gauge(
            "sis_digest_age_seconds", "Since a complete round of the mirror's digests was compared", registry=self.registry
        )
        self.digest_differences = Counter(
            "sis_digest_differences_total",
            "Entities on which ledger and mirror differed, by how",
            ["difference"],  # missing_here, behind, ahead, hash, missing_there
            registry=self.registry,
        )
        self.digest_repaired = Counter(
            "sis_digest_repaired_total",
            "Differences that a later digest did not find any more",
            ["difference"],
            registry=self.registry,
        )
        self.digest_stubborn = Gauge(
            "sis_digest_stubborn", "Differences that telling the publisher three times did not cure", registry=self.registry
        )

    def _of_seats(self) -> None:
        self.freshness = Histogram(
            "sis_event_to_applied_seconds",
            "From the publisher's acceptance to the confirmation in the LMS",
            ["effect"],  # add, drop, update
            buckets=FRESHNESS_SECONDS,
            registry=self.registry,
        )
        self.seats = Gauge(
            "sis_seats",
            "Seats by state; those of intent_open and suspect are counted beside the state of their work",
            ["target", "state"],  # settled, pending, retrying, waiting, guarded, held, dead, shadow; intent_open, suspect
            registry=self.registry,
        )
        self.seats_oldest = Gauge(
            "sis_seats_oldest_seconds", "Since the longest of them is in this state", ["target", "state"], registry=self.registry
        )
        self.oldest = Gauge(
            "sis_oldest_unapplied_event_age_seconds",
            "Age of the oldest unsettled change",
            ["target", "state"],
            registry=self.registry,
        )
        self.waiting = Gauge(
            "sis_waiting_seats",
            "Seats that wait for an object that the LMS lacks",
            ["target", "kind"],  # user, section
            registry=self.registry,
        )
        self.waiting_oldest = Gauge(
            "sis_waiting_seats_oldest_seconds", "Since the longest of them waits", ["target", "kind"], registry=self.registry
        )
        self.dead_seats = Gauge(
            "sis_dead_seats",
            "Seats that the LMS refuses, by class: the outcome and its code from the target's closed list",
            ["target", "class"],
            registry=self.registry,
        )
        self.dead_left = Gauge(
            "sis_dead_seats_left_to_people", "Those of them that no timer brings back", ["target"], registry=self.registry
        )
        self.dead = Counter("sis_dead_letters_total", "Seats that became dead letters", ["reason"], registry=self.registry)
        self.dead_released = Counter(
            "sis_dead_letters_released_total", "Dead letters that a timer brought back", ["target"], registry=self.registry
        )
        self.sections_to_decide = Gauge(
            "sis_sections_to_decide", "Large sections that changed, their members not all decided yet", registry=self.registry
        )
        self.sections_to_decide_age = Gauge(
            "sis_sections_to_decide_oldest_seconds", "Since the longest of them waits", registry=self.registry
        )

    def _of_guard(self) -> None:
        self.removals = Counter(
            "sis_removals_total",
            "Removals by what the guard did: let through below the limits, with a cancelled class or as announced, or held",
            ["target", "result"],  # counted, cancelled, planned, held
            registry=self.registry,
        )
        self.holds_opened = Counter(
            "sis_holds_opened_total",
            "Holds by scope",
            ["target", "scope"],  # section, course, term, tenant, cancelled_section, cancelled_term, reused_section
            registry=self.registry,
        )
        self.holds = Gauge("sis_holds_open", "Holds that nobody has decided", ["target"], registry=self.registry)
        self.holds_oldest = Gauge(
            "sis_holds_oldest_seconds", "Since the oldest of them is open", ["target"], registry=self.registry
        )
        self.guard_failures = Counter(
            "sis_guard_failures_total", "Rounds of the guard that a defect ended", ["target"], registry=self.registry
        )
        self.removals_paused = Gauge(
            "sis_removals_paused", "1 while an operator lets no removal through", ["target"], registry=self.registry
        )

    def _of_rosters(self) -> None:
        self.rosters_read = Counter(
            "sis_rosters_read_total", "Sections whose roster was compared with the ledger", ["target"], registry=self.registry
        )
        self.roster_differences = Counter(
            "sis_roster_differences_total",
            "What rosters showed otherwise than the ledger",
            ["target", "kind"],  # rosters.comparing.Kind
            registry=self.registry,
        )
        self.drift = Gauge(
            "sis_drift_items",
            "Differences that stand, by whether the term is live or in shadow",
            ["target", "kind", "mode"],
            registry=self.registry,
        )
        self.drift_expiring = Gauge(
            "sis_drift_expiring",
            "Members whom nobody gave and whose enrollment goes soon, as the policy says",
            ["target", "within"],  # day; week, which includes the day
            registry=self.registry,
        )
        self.compared_at = Gauge(
            "sis_reconcile_last_success_timestamp_seconds",
            "When a comparison with the rosters last came to its end in this process",
            ["target"],
            registry=self.registry,
        )
        self.roster_failures = Counter(
            "sis_roster_failures_total", "Rounds of reading rosters that a defect ended", ["target"], registry=self.registry
        )

    def _of_objects(self) -> None:
        self.objects = Gauge(
            "sis_objects",
            "Objects of the LMS that are made or kept as the SIS has them",
            ["target", "kind", "state"],  # pending, retrying, waiting, held, refused, suspect, settled, shadow
            registry=self.registry,
        )
        self.objects_oldest = Gauge(
            "sis_objects_oldest_seconds",
            "Since the longest of them is in this state",
            ["target", "kind", "state"],
            registry=self.registry,
        )

    def _of_overrides(self) -> None:
        self.overrides = Gauge(
            "sis_overrides_in_force", "Seats that a registrar decides otherwise than the SIS", registry=self.registry
        )

    def _of_calls(self) -> None:
        self.calls = Counter("lms_requests_total", "Calls to the LMS", ["target", "endpoint", "outcome"], registry=self.registry)
        self.call_seconds = Histogram(
            "lms_request_seconds",
            "Duration of a call to the LMS",
            ["target", "endpoint"],
            buckets=CALL_SECONDS,
            registry=self.registry,
        )
        self.rate_limit_remaining = Gauge(
            "lms_rate_limit_remaining", "As the last answer reported it", ["target"], registry=self.registry
        )
        self.lease_held = Gauge("sis_lease_held", "1 while this process drives the target", ["target"], registry=self.registry)

    def _of_operators(self) -> None:
        self.operator_actions = Counter(
            "sis_operator_actions_total", "Calls to the operations API", ["action", "result"], registry=self.registry
        )
