"""What travels between mirror and ledger besides events."""

from __future__ import annotations

import uuid

import pytest
from pydantic import ValidationError

from schemas import digests, returns
from schemas.digests import Bound, DigestEnd, DigestPage, Entry, UnreadableDigest
from schemas.returns import DigestsWanted, KeyAt, RepublishKeys, RepublishScope, ReturnedEvent, Scope, UnreadableReturn

ANY = uuid.UUID(int=7)


def test_what_is_written_is_read() -> None:
    entry = Entry("main", "person", "9000001", 5, "0" * 32, True)
    page = DigestPage(
        round=ANY, number=1, after=Bound("a", "b", "c"), upto=None, complete_to=-1, log_ends={"t/0": 3}, entries=[entry]
    )
    for digest in (page, DigestEnd(round=ANY, pages=2, answers=[ANY])):
        assert digests.decode(digests.encode(digest)) == digest
    sent = (
        RepublishKeys(keys=[KeyAt("main", "person", "9000001", 5)]),
        RepublishScope(request=ANY, scope=Scope(term="1259"), reason="trimmed"),
        DigestsWanted(request=ANY),
        ReturnedEvent(kind="person", event={"person": "9000001", "version": 2**62}),
    )
    for message in sent:
        assert returns.decode(returns.encode(message)) == message


@pytest.mark.parametrize("value", [None, b"", b"{", b'{"type":"newer"}', b'{"type":"page","round":1}'])
def test_what_cannot_be_read_says_so_and_quotes_nothing(value: bytes | None) -> None:
    with pytest.raises(UnreadableDigest, match=r"^\d+ problems$"):
        digests.decode(value)
    with pytest.raises(UnreadableReturn, match=r"^\d+ problems$"):
        returns.decode(value)


def test_a_newer_writers_field_is_ignored() -> None:
    assert returns.decode(b'{"type":"digests","request":"%s","why":"x"}' % str(ANY).encode()) == DigestsWanted(request=ANY)


@pytest.mark.parametrize("scope", [{}, {"all": True, "term": "1259"}, {"section": "1001"}])
def test_everything_has_to_be_meant(scope: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Scope.model_validate(scope)
