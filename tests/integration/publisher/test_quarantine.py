"""Quarantine over a real PostgreSQL: kept once, redacted or sealed, gone after its time, honest when the database is away."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from cryptography.fernet import Fernet

from services.kit.credentials import CredentialFileError
from services.kit.postgres import migrate
from services.publisher.changes import Reject, Unavailable
from services.publisher.intake.ports import Poison
from services.publisher.quarantine import Quarantine
from services.sandbox.postgres import EmbeddedPostgres
from tests.unit.publisher.fakes import FakeQuarantine

BODY = b"<X><From><Password>hunter2</Password></From>"
MALFORMED = Reject("malformed_xml", "line 1, column 40")
ROW = Reject("unknown_code", "Transaction[1]/NAMES[1]: EFFDT", {"EMPLID": "0090001", "DISPLAY_NAME": "June Quist"})


def poison(body: bytes = BODY) -> Poison:
    return Poison(body, len(body), hashlib.sha256(body).hexdigest())


@pytest.fixture
def mirror_url(database_url: str) -> str:
    migrate(database_url, files("services.publisher.mirror") / "migrations", "mirror")
    return database_url


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(Fernet.generate_key())
    return path


@pytest.fixture
def cipher(key_file: Path) -> Fernet:
    return Fernet(key_file.read_bytes())


@pytest.fixture
async def quarantine(mirror_url: str, key_file: Path) -> AsyncIterator[Quarantine]:
    store = Quarantine(mirror_url, "main", key_file=key_file)
    await store.start()
    yield store
    await store.stop()


def kept(url: str) -> list[dict[str, Any]]:
    with psycopg.connect(url) as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
        return cursor.execute("select * from mirror.quarantine order by at, detail").fetchall()


async def test_a_row_of_an_extract_of_gigabytes_is_kept(quarantine: Quarantine) -> None:
    await quarantine.put("snapshot:campus", [ROW], Poison(None, 3 * 1024**3, "d" * 64))


async def test_bytes_that_do_not_parse_are_sealed_without_their_password(
    quarantine: Quarantine, mirror_url: str, cipher: Fernet
) -> None:
    await quarantine.put("ib:PSFT_CS", [MALFORMED], poison())
    (row,) = kept(mirror_url)
    assert (row["tenant"], row["channel"], row["reason"], row["detail"]) == (
        "main",
        "ib:PSFT_CS",
        "malformed_xml",
        MALFORMED.detail,
    )
    assert (row["body_encrypted"], row["body_bytes"], row["digest"]) == (True, len(BODY), poison().digest)
    assert cipher.decrypt(row["body"]) == b"<X><From><Password></Password></From>"


async def test_a_row_that_parsed_is_kept_readable_and_its_names_masked(quarantine: Quarantine, mirror_url: str) -> None:
    await quarantine.put("ib:PSFT_CS", [ROW], poison())
    (row,) = kept(mirror_url)
    assert not row["body_encrypted"]
    assert orjson.loads(row["body"]) == {"EMPLID": "0090001", "DISPLAY_NAME": "***"}


async def test_without_a_key_nothing_but_digest_and_length_is_kept(mirror_url: str) -> None:
    store = Quarantine(mirror_url, "main")
    await store.put("ib:PSFT_CS", [MALFORMED], poison())
    await store.stop()
    (row,) = kept(mirror_url)
    assert (row["body"], row["body_encrypted"], row["body_bytes"]) == (None, False, len(BODY))


async def test_what_was_never_read_leaves_digest_and_length(quarantine: Quarantine, mirror_url: str) -> None:
    await quarantine.put("ib:unknown", [Reject("too_large", "more than 5242880 bytes")], Poison(None, 10_485_760, "d"))
    (row,) = kept(mirror_url)
    assert (row["body"], row["body_encrypted"], row["body_bytes"]) == (None, False, 10_485_760)


async def test_the_same_poison_again_is_one_row_and_every_part_of_it_has_its_own(quarantine: Quarantine, mirror_url: str) -> None:
    for _ in range(3):
        await quarantine.put("ib:PSFT_CS", [ROW, MALFORMED], poison())
    assert len(kept(mirror_url)) == 2
    await quarantine.put("ib:PSFT_CS", [MALFORMED], poison(b"<Y>"))
    assert len(kept(mirror_url)) == 3


async def test_all_parts_are_kept_or_none(quarantine: Quarantine, mirror_url: str) -> None:
    impossible = Reject("unknown_code", "a detail with \0, which no table can hold", {})
    with pytest.raises(Unavailable):
        await quarantine.put("ib:PSFT_CS", [MALFORMED, impossible], poison())
    assert kept(mirror_url) == []


async def test_a_bad_message_of_many_parts_is_kept_in_time(quarantine: Quarantine, mirror_url: str) -> None:
    rejects = [Reject("unknown_code", f"Transaction[{number}]", {"EMPLID": str(number)}) for number in range(501)]
    begun = time.perf_counter()
    await quarantine.put("ib:PSFT_CS", rejects, poison(b"x" * 5_000_000))
    assert time.perf_counter() - begun < 5
    assert len(kept(mirror_url)) == 501


async def test_the_fake_of_the_unit_tests_keeps_the_same(quarantine: Quarantine, mirror_url: str) -> None:
    fake = FakeQuarantine()
    for channel, rejects, body in [
        ("ib:A", [MALFORMED, ROW], BODY),
        ("ib:A", [ROW], BODY),
        ("ib:B", [ROW], BODY),
        ("ib:A", [ROW, ROW], b"<Y>"),
    ]:
        await quarantine.put(channel, rejects, poison(body))
        await fake.put(channel, rejects, poison(body))
    assert sorted((row["channel"], row["digest"], row["detail"]) for row in kept(mirror_url)) == sorted(fake.kept)


async def test_old_rows_go_and_those_of_other_tenants_stay(quarantine: Quarantine, mirror_url: str) -> None:
    await quarantine.put("ib:PSFT_CS", [MALFORMED, ROW], poison())
    with psycopg.connect(mirror_url) as connection:
        connection.execute("update mirror.quarantine set at = at - interval '15 days' where reason = 'malformed_xml'")
        connection.execute(
            """insert into mirror.quarantine (id, at, tenant, channel, reason, detail, body_encrypted, body_bytes, digest)
               select gen_random_uuid(), at, 'other', channel, reason, detail, false, 0, digest from mirror.quarantine"""
        )
    assert await quarantine.purge() == 1
    assert sorted((row["tenant"], row["reason"]) for row in kept(mirror_url)) == [
        ("main", "unknown_code"),
        ("other", "malformed_xml"),
        ("other", "unknown_code"),
    ]


async def test_a_connection_that_died_is_replaced(quarantine: Quarantine, mirror_url: str) -> None:
    await quarantine.put("ib:PSFT_CS", [MALFORMED], poison())
    with psycopg.connect(mirror_url) as connection:
        connection.execute(
            """select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()"""
        )
    await quarantine.put("ib:PSFT_CS", [ROW], poison())
    assert len(kept(mirror_url)) == 2


async def test_a_table_that_is_locked_is_no_endless_wait(mirror_url: str) -> None:
    store = Quarantine(mirror_url, "main", answer_within_seconds=0.3)
    with psycopg.connect(mirror_url) as connection:
        connection.execute("lock table mirror.quarantine")
        with pytest.raises(Unavailable) as caught:
            await store.put("ib:PSFT_CS", [MALFORMED], poison())
    assert caught.value.reason == "deadline"
    await store.put("ib:PSFT_CS", [MALFORMED], poison())
    await store.stop()
    assert len(kept(mirror_url)) == 1


async def test_without_a_database_the_answer_is_unavailable_until_it_is_back(own_postgres: EmbeddedPostgres) -> None:
    url = own_postgres.create_database("own")
    migrate(url, files("services.publisher.mirror") / "migrations", "mirror")
    store = Quarantine(url, "main")
    await store.put("ib:PSFT_CS", [MALFORMED], poison())
    own_postgres.kill()
    with pytest.raises(Unavailable) as caught:
        await store.put("ib:PSFT_CS", [ROW], poison())
    assert caught.value.reason == "database"
    own_postgres.start_again()
    await store.put("ib:PSFT_CS", [ROW], poison())
    assert len(kept(url)) == 2
    await store.stop()


async def test_a_key_that_is_none_is_found_at_the_start(mirror_url: str, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("not a key")
    with pytest.raises(CredentialFileError, match="Fernet key"):
        await Quarantine(mirror_url, "main", key_file=key_file).start()
