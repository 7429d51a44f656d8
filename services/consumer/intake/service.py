"""The intake as the process holds it: a thread's work, and what other threads may ask about it."""

from __future__ import annotations

import threading

from services.consumer.intake.ledger import Ledger
from services.consumer.intake.pulse import Pulse
from services.consumer.intake.reader import Reader
from services.consumer.intake.status import Status
from services.consumer.ledger.announcing import Handover
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.recovery import Witness
from services.consumer.metrics import Metrics
from services.consumer.settings import Settings
from services.kit.kafka import KafkaSettings


class Intake:
    """Reads the log into the ledger until `stop`. `run` owns the thread; everything else may be called from others.

    The ledger's offset is the one that counts. Kafka's commit follows it, and the LMS is never waited for.
    """

    def __init__(
        self, settings: Settings, kafka: KafkaSettings, policies: Policies, metrics: Metrics, handover: Handover
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._policies = policies
        self._metrics = metrics
        self._handover = handover
        self.witness = Witness()
        self.pulse = Pulse()
        self.status = Status()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask `run` to end after the batch at hand."""
        self._stopping.set()

    def run(self) -> None:
        """Work until `stop`; raises `log.records.LogFailed`, or a defect, when only a new process can go on."""
        self._metrics.poll_age.set_function(self.pulse.age_seconds)
        ledger = Ledger(self._settings, self.witness, self.pulse, self.status)
        reader = Reader(
            self._settings,
            self._kafka,
            self._policies,
            self._metrics,
            self._handover,
            ledger,
            self.pulse,
            self.status,
        )
        try:
            reader.run(self._stopping)
        finally:
            try:
                reader.close()
            finally:
                ledger.close()
