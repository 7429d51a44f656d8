"""How a path names an object by its SIS id (``lib/api.rb``)."""

from __future__ import annotations

import re
from typing import Literal

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def by_sis_id(kind: Literal["user", "section", "course", "term"], sis_id: str) -> str:
    """The SIS form of an id, safe in any path or parameter.

    Canvas also accepts percent-encoded values, but proxies decode ``%2F``, routers cut ``.json`` off as a format, and values
    are trimmed; the ``hex:`` form survives all of that.
    """
    if _PLAIN.fullmatch(sis_id):
        return f"sis_{kind}_id:{sis_id}"
    return f"hex:sis_{kind}_id:{sis_id.encode().hex()}"
