"""Addresses of people (``app/models/communication_channel.rb``, ``app/models/user.rb``). The first one is shown as the user's."""

from __future__ import annotations

import re

from services.sandbox.canvas.state import Channel, User
from services.sandbox.canvas.world import World

_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def is_address(text: str) -> bool:
    """``lib/email_address_validator.rb``, simplified."""
    return _ADDRESS.fullmatch(text) is not None


def make_default(user: User, address: str) -> None:
    """``user.rb#email=``: an address that is known moves to the front, a new one is unconfirmed; the others stay behind it."""
    known = [channel for channel in user.channels if _same(channel.address, address)]
    others = [channel for channel in user.channels if not _same(channel.address, address)]
    user.channels = [Channel(address, known[0].confirmed if known else False), *others]


def is_somebody_elses(world: World, user: User, address: str) -> bool:
    """Whether another person with a login has it, confirmed (``communication_channel.rb#merge_candidates``)."""
    others = (other for other in world.users.values() if other is not user and other.login())
    return any(channel.confirmed and _same(channel.address, address) for other in others for channel in other.channels)


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()
