"""Locks that stand for sections, the first that a deciding transaction takes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from schemas import keys
from services.kit.postgres import Connection, text_array

_CLASS = 0x5EC7
"""Of the advisory locks."""


def take(connection: Connection, sections: Iterable[tuple[str, str, bool]]) -> None:
    """Let what changes a section and what reads it for a new member pass one after the other, until the transaction ends.

    Each is a tenant, a section key text, and whether the section itself changes. Without it two transactions could miss each
    other: one cancels the section and does not see the enrollment that the other has not committed, which in turn decides by a
    section that is still active. New members of one section do not exclude each other. Advisory locks, because the section may
    not have a row yet; equal numbers of different sections only wait needlessly.
    """
    exclusive: dict[int, bool] = {}
    for tenant, section, changes in sections:
        number = zlib.crc32(keys.join(tenant, section).encode()) - 2**31
        exclusive[number] = exclusive.get(number, False) or changes
    if exclusive:
        ordered = sorted(exclusive)
        connection.execute(
            """select case when exclusive then pg_advisory_xact_lock(%s, number) else pg_advisory_xact_lock_shared(%s, number) end
                 from unnest(%s::int[], %s::bool[]) as section(number, exclusive)""",
            [
                _CLASS,
                _CLASS,
                text_array(str(number) for number in ordered),
                text_array(str(exclusive[number]).lower() for number in ordered),
            ],
        )
