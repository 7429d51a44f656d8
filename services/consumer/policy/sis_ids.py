"""How ids of the SIS are written in the LMS: the policy's templates, and reading them backwards."""

from __future__ import annotations

import re
from typing import Annotated

from services.consumer.policy.parts import Part, pieces, template


class SisIds(Part):
    """How an id of the SIS is written in the LMS."""

    user: Annotated[str, template("tenant", "person", needs="person")]
    section: Annotated[str, template("tenant", "institution", "term", "section", needs="section")]
    combined: Annotated[str, template("tenant", "institution", "term", "combined", needs="combined")] | None = None
    """Of what is one section in the LMS and several combined ones in the SIS; None: each of these has its own."""
    course: Annotated[str, template("tenant", "institution", "term", "course", "section", needs=("course", "section"))] | None = (
        None
    )
    """With {section} every section has a course of its own; None while no section is made."""
    term: Annotated[str, template("tenant", "institution", "term", needs="term")] | None = None
    """None leaves new courses in the LMS's own default term."""

    def person_of(self, tenant: str, lms_user: str) -> str | None:
        """Whose id in the LMS this is, read backwards through the template; None when it cannot be said. What fills an id up is
        no part of it."""
        parts, filling = [], ""
        for literal, field, padding, _conversion in pieces(self.user):
            parts.append(re.escape(literal))
            parts.append({"person": "(.+)", "tenant": re.escape(tenant)}.get(field or "", ""))
            if field == "person" and padding:
                filling = padding[0] if padding[0] not in "<>^" else " "
        found = re.fullmatch("".join(parts), lms_user, re.DOTALL) if parts.count("(.+)") == 1 else None
        if found is None:
            return None
        person = found.group(1).strip(filling) if filling else found.group(1)
        return person if person and self.user.format(tenant=tenant, person=person) == lms_user else None
