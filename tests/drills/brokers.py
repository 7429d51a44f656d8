"""Three real Kafka brokers (KRaft, each broker and controller) on this machine: two copies in sync make a write count."""

from __future__ import annotations

import base64
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from services.kit.kafka import KafkaSettings
from services.sandbox.demo.processes import free_port
from tests.drills.injectors.proxy import Network
from tests.drills.programs import Program

T = TypeVar("T")

DEPLOY = Path(__file__).parents[2] / "deploy" / "kafka"
CLIENTS = ("PUBLISHER", "CONSUMER1", "CONSUMER2")
"""Listeners behind links of the same name; CONSUMER1's wants a password."""
SASL_LISTENER, SASL_USER, SASL_PASSWORD = "CONSUMER1", "consumer", "right-password"
_HEAP = ["-Xms192m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=96m", "-XX:TieredStopAtLevel=1"]
_START_SECONDS = 180


class Brokers:
    """The cluster; brokers count from 1."""

    def __init__(self, folder: Path, network: Network, count: int = 3) -> None:
        """Format the storage; nothing runs yet."""
        self.folder = folder
        self.count = count
        self.ids = range(1, count + 1)
        self._jars = subprocess.run(
            [str(DEPLOY / "kafka.sh"), "jars"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        self._ports = {(name, number): free_port() for name in ("INTERNAL", "CONTROLLER", *CLIENTS) for number in self.ids}
        for client in CLIENTS:
            for number in self.ids:
                network.link(f"kafka.{client}.{number}", ("127.0.0.1", self._ports[client, number]))
        self._network = network
        self._programs = {number: self._program(number) for number in self.ids}
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda number: self._format(number, cluster), self.ids))
        self._admin: AdminClient | None = None

    # -- what clients need -------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> KafkaSettings:
        """Around all links, for the drill itself."""
        servers = ",".join(f"127.0.0.1:{self._ports['INTERNAL', number]}" for number in self.ids)
        return KafkaSettings(bootstrap_servers=servers, fetch_wait_max_ms=50)

    def variables(self, client: str) -> dict[str, str]:
        """``KAFKA_*`` of a service behind the links of `client`."""
        servers = ",".join(f"127.0.0.1:{self._network.links[f'kafka.{client}.{number}'].port}" for number in self.ids)
        variables = {"KAFKA_BOOTSTRAP_SERVERS": servers, "KAFKA_FETCH_WAIT_MAX_MS": "100"}
        if client == SASL_LISTENER:
            variables |= {
                "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
                "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
                "KAFKA_SASL_USERNAME": SASL_USER,
                "KAFKA_SASL_PASSWORD": SASL_PASSWORD,
            }
        return variables

    @property
    def admin(self) -> AdminClient:
        """A client for whatever the drill wants to know or change.

        A new one after each fall of a broker: one that had lived through two ended this process inside librdkafka 2.16, twice.
        """
        if self._admin is None:
            self._admin = self._client()
        return self._admin

    def _client(self) -> AdminClient:
        return AdminClient(self.settings.client() | {"log_level": 0})

    # -- life --------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """All of them, until all are seen."""
        for program in self._programs.values():
            program.start()
        self.await_all()
        self.set_password(SASL_PASSWORD)

    def await_all(self) -> None:
        """Block until every broker is in the cluster and every partition has all its copies in sync."""
        deadline = time.monotonic() + _START_SECONDS
        while not self.whole():
            for program in self._programs.values():
                assert program.alive, f"{program.name} ended; its log ends with:\n{program.tail()}"
            assert time.monotonic() < deadline, "the cluster is not whole in time:\n" + self._programs[1].tail()
            time.sleep(0.3)

    def whole(self) -> bool:
        """Every broker is there and every copy in sync."""
        try:
            found = self._client().list_topics(timeout=5)
        except KafkaException:
            return False
        partitions = [one for topic in found.topics.values() for one in topic.partitions.values()]
        return len(found.brokers) == self.count and all(len(one.isrs) == len(one.replicas) for one in partitions)

    def kill(self, number: int) -> None:
        """SIGKILL one."""
        self._programs[number].kill()
        self._admin = None

    def revive(self) -> None:
        """Start those that are not running, and wait for all."""
        for program in self._programs.values():
            if not program.alive:
                program.start()
        self.await_all()

    def pid(self, number: int) -> int:
        """For pausing."""
        return self._programs[number].pid

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [program.pid for program in self._programs.values() if program.alive]

    def stop(self) -> None:
        """All of them. A quorum member waits for the others when it leaves, so that the patience is short."""
        for program in self._programs.values():
            program.stop(signal.SIGKILL)

    # -- asking and changing -----------------------------------------------------------------------------------------------

    def leader(self, topic: str, partition: int = 0) -> int:
        """Who leads a partition."""
        return int(self.admin.list_topics(topic, timeout=10).topics[topic].partitions[partition].leader)

    def coordinator(self, group: str) -> int:
        """Who coordinates a group."""
        return int(
            self._patiently(
                lambda: self.admin.describe_consumer_groups([group], request_timeout=10)[group].result(15)
            ).coordinator.id
        )

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """What a group has committed."""
        asked = [ConsumerGroupTopicPartitions(group)]
        answer = self._patiently(lambda: self.admin.list_consumer_group_offsets(asked)[group].result(15))
        return {(one.topic, one.partition): one.offset for one in answer.topic_partitions if one.offset >= 0}

    def ends(self, topic: str) -> dict[int, int]:
        """One past the newest offset of each partition."""
        partitions = self.admin.list_topics(topic, timeout=10).topics[topic].partitions
        asked = {TopicPartition(topic, number): OffsetSpec.latest() for number in partitions}  # type: ignore[no-untyped-call]
        answers = self.admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED)
        return {place.partition: answer.result(15).offset for place, answer in answers.items()}

    def trim(self, topics: Collection[str]) -> int:
        """Delete every record that these topics hold, as retention would; returns how many partitions lost something."""
        places = [TopicPartition(topic, number, end) for topic in topics for number, end in self.ends(topic).items() if end]
        for answer in (self.admin.delete_records(places) if places else {}).values():
            answer.result(20)
        return len(places)

    def delete(self, *topics: str) -> None:
        """Delete topics and wait until they are gone."""
        for answer in self.admin.delete_topics(list(topics)).values():
            answer.result(20)
        deadline = time.monotonic() + 30
        while set(topics) & set(self.admin.list_topics(timeout=10).topics):
            assert time.monotonic() < deadline, "the topics do not go away"
            time.sleep(0.2)

    def topic_ids(self, *topics: str) -> dict[str, str]:
        """Kafka's own ids."""
        answers = self.admin.describe_topics(TopicCollection(list(topics)), request_timeout=10)
        return {topic: str(answer.result(15).topic_id) for topic, answer in answers.items()}

    def set_password(self, password: str) -> None:
        """Rotate what the brokers take from the consumer; connections that are open stay open."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(SASL_USER, info, password.encode())

        def rotate() -> None:
            for answer in self.admin.alter_user_scram_credentials([change]).values():
                answer.result(20)

        self._patiently(rotate)

    @contextmanager
    def unwritable(self, topic: str) -> Iterator[None]:
        """The consumer behind the listener with a password may not write to a topic inside; everybody else may."""
        rights = [
            _acl(topic, f"User:{SASL_USER}", AclOperation.WRITE, AclPermissionType.DENY),
            _acl(topic, "User:*", AclOperation.ALL, AclPermissionType.ALLOW),
        ]
        for answer in self.admin.create_acls(rights).values():
            answer.result(20)
        try:
            yield
        finally:
            kinds = (AclOperation.ANY, AclPermissionType.ANY)
            everything = AclBindingFilter(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, None, None, *kinds)  # type: ignore[arg-type]  # None is any
            for answer in self.admin.delete_acls([everything]).values():
                answer.result(20)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Coordinators and controllers move now and then, and the client may wait for the one that is gone."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return ask()
            except (KafkaException, TimeoutError):
                if time.monotonic() > deadline:
                    raise
                self._admin = None

    # -- files -------------------------------------------------------------------------------------------------------------

    def _program(self, number: int) -> Program:
        log4j = f"-Dlog4j2.configurationFile={DEPLOY / 'log4j2.properties'}"
        java = ["java", *_HEAP, log4j, "-cp", f"{self._jars}/*", "kafka.Kafka", str(self._properties(number))]
        return Program(f"broker-{number}", java, self.folder / f"broker-{number}.log")

    def _properties(self, number: int) -> Path:
        names = ("INTERNAL", "CONTROLLER", *CLIENTS)
        advertised = {"INTERNAL": self._ports["INTERNAL", number]}
        advertised |= {client: self._network.links[f"kafka.{client}.{number}"].port for client in CLIENTS}
        protocols = dict.fromkeys(names, "PLAINTEXT") | {SASL_LISTENER: "SASL_PLAINTEXT"}
        values = {
            "ID": str(number),
            "VOTERS": ",".join(f"{each}@127.0.0.1:{self._ports['CONTROLLER', each]}" for each in self.ids),
            "LISTENERS": ",".join(f"{name}://127.0.0.1:{self._ports[name, number]}" for name in names),
            "ADVERTISED": ",".join(f"{name}://127.0.0.1:{port}" for name, port in advertised.items()),
            "PROTOCOLS": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "DATA": str(self.folder / f"broker-{number}"),
        }
        text = (DEPLOY / "cluster.properties").read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        jaas = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        text += f"listener.name.{SASL_LISTENER.lower()}.scram-sha-512.sasl.jaas.config={jaas}\n"
        path = self.folder / f"broker-{number}.properties"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def _format(self, number: int, cluster: str) -> None:
        tool = ["java", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={DEPLOY / 'log4j2.properties'}"]
        arguments = ["format", f"--cluster-id={cluster}", "-c", str(self.folder / f"broker-{number}.properties")]
        command = [*tool, "-cp", f"{self._jars}/*", "kafka.tools.StorageTool", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


def _acl(topic: str, principal: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    return AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, principal, "*", operation, permission)
