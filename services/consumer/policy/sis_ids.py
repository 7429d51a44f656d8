"""How ids of the SIS are written in the LMS: the policy's templates, and reading them backwards."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator

from services.consumer.policy.parts import Part

_PADDING = re.compile(r"[^{}]?[<>^][1-9][0-9]?")


def _template(*known: str) -> AfterValidator:
    """Accepts text with ``{field}`` and ``{field:0>5}``; anything cleverer could fail, or let two objects share one id."""

    def check(text: str) -> str:
        used = set()
        for _literal, field, padding, conversion in _pieces(text):
            if field is None:
                continue
            if field not in known:
                raise ValueError(f"unknown field {{{field}}}; known are {', '.join(known)}")
            if conversion or (padding and not _PADDING.fullmatch(padding)):
                raise ValueError(f"{{{field}}} may only be padded, for example {{{field}:0>5}}")
            used.add(field)
        if known[-1] not in used:
            raise ValueError(f"must contain {{{known[-1]}}}, otherwise all of them would share one id")
        return text

    return AfterValidator(check)


def _pieces(text: str) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    try:
        yield from string.Formatter().parse(text)
    except ValueError as error:
        raise ValueError(f"unbalanced braces ({error})") from error


class SisIds(Part):
    """How an id of the SIS is written in the LMS."""

    user: Annotated[str, _template("tenant", "person")]
    section: Annotated[str, _template("tenant", "institution", "term", "section")]
    combined: Annotated[str, _template("tenant", "institution", "term", "combined")] | None = None
    """Of what is one section in the LMS and several combined ones in the SIS; None: each of these has its own."""

    def person_of(self, tenant: str, lms_user: str) -> str | None:
        """Whose id in the LMS this is, read backwards through the template; None when it cannot be said. What fills an id up is
        no part of it."""
        parts, filling = [], ""
        for literal, field, padding, _conversion in _pieces(self.user):
            parts.append(re.escape(literal))
            parts.append({"person": "(.+)", "tenant": re.escape(tenant)}.get(field or "", ""))
            if field == "person" and padding:
                filling = padding[0] if padding[0] not in "<>^" else " "
        found = re.fullmatch("".join(parts), lms_user, re.DOTALL) if parts.count("(.+)") == 1 else None
        if found is None:
            return None
        person = found.group(1).strip(filling) if filling else found.group(1)
        return person if person and self.user.format(tenant=tenant, person=person) == lms_user else None
