"""What once stood in the way of an object must not keep it, and those who wait for it, waiting when it is gone."""

from __future__ import annotations

import pytest

from tests.integration.consumer.drive.provision_support import PERSON, Campus

OTHER = "9000002"


@pytest.mark.parametrize("said", [{"merged_into": OTHER}, {}], ids=["merged", "removed"])
async def test_the_first_that_is_heard_of_somebody_may_be_that_they_are_gone(campus: Campus, said: dict[str, str]) -> None:
    """Until then their account waits for that very event."""
    campus.enroll()
    async with campus.driving():
        await campus.state(PERSON, "waiting", "untold:person")
    campus.person(name=None, status="removed", **said)
    told = campus.ledger.one("select suspends, moves_to from lms_object where object = %s", PERSON)
    assert told == (not said, said.get("merged_into"))
