"""Which of two copies of one source row is newer. Pure.

1. A position decides within its channel and incarnation: at or below the highest one seen of this row is old news, except that
   the position of the stored copy itself may carry other content (one message may name a row twice, and clocks tie): then
   arrival decides, and the verdict says so.
2. Otherwise the as-of intervals decide, when more than `MARGIN` lies between them: the clocks behind them differ a little.
3. Otherwise a delta beats a row of a full extract: the extract may have read the row before the delta was committed.
4. Otherwise arrival decides, and the verdict says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from schemas.events import OrderToken

MARGIN = timedelta(seconds=5)
Positions = Mapping[str, int]
"""Highest position seen of one source row, by `channel_name`."""


class Verdict(NamedTuple):
    """How an incoming copy of a row relates to the stored one."""

    age: Literal["newer", "older", "duplicate"]
    ambiguous: bool = False
    """Arrival had to decide."""


NEWER, OLDER, DUPLICATE = Verdict("newer"), Verdict("older"), Verdict("duplicate")
BY_ARRIVAL = Verdict("newer", ambiguous=True)


def channel_name(order: OrderToken) -> str:
    """Positions compare only under the same name."""
    return f"{order.channel}\n{order.incarnation}"


def compare(stored: OrderToken, seen: Positions, incoming: OrderToken, *, same_content: bool) -> Verdict:
    """Where an incoming copy stands; `same_content` is whether laying it over the stored copy changes nothing."""
    same_channel = channel_name(stored) == channel_name(incoming)
    if incoming.position is not None:
        highest = seen.get(channel_name(incoming))
        if highest is not None and incoming.position < highest:
            return OLDER
        if highest is not None and incoming.position == highest:
            tie = same_channel and stored.position == highest and not same_content
            return BY_ARRIVAL if tie else DUPLICATE
        if same_channel and stored.position is not None:
            return NEWER
    elif same_content and incoming == stored:
        return DUPLICATE
    return _by_time(stored, incoming, same_content)


def _by_time(stored: OrderToken, incoming: OrderToken, same_content: bool) -> Verdict:
    if _clearly_after(incoming, stored):
        return NEWER
    if _clearly_after(stored, incoming):
        return OLDER
    if stored.snapshot != incoming.snapshot:
        return OLDER if incoming.snapshot else NEWER
    return NEWER if same_content else BY_ARRIVAL


def _clearly_after(one: OrderToken, other: OrderToken) -> bool:
    start, end = one.as_of_from or one.as_of_to, other.as_of_to or other.as_of_from
    return start is not None and end is not None and start > end + MARGIN


def raised(seen: Positions, incoming: OrderToken) -> dict[str, int]:
    """`seen` after this token went by, whatever became of it."""
    if incoming.position is None:
        return dict(seen)
    name = channel_name(incoming)
    return {**seen, name: max(incoming.position, seen.get(name, incoming.position))}


def shows(stored: OrderToken, seen: Positions, incoming: OrderToken) -> bool:
    """Whether a stored copy is the incoming one or newer, so that nothing is lost by forgetting the incoming one.

    Where only arrival could tell, the stored copy counts: the incoming one was folded before and has been overtaken.
    """
    verdict = compare(stored, seen, incoming, same_content=False)
    return verdict.age != "newer" or verdict.ambiguous


def happened_at(order: OrderToken) -> datetime | None:
    """When the SIS says that a copy became true, as far as it says."""
    return order.as_of_from or order.as_of_to


def token(fields: Sequence[Any]) -> OrderToken:
    """The order columns of a source row, in the table's order. They were validated when they came in."""
    names = ("channel", "incarnation", "position", "as_of_from", "as_of_to", "snapshot")
    return OrderToken.model_construct(None, **dict(zip(names, fields, strict=True)))
