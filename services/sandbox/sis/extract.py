"""Full extracts as the SIS's own query writes them: CSV with a header, and a trailer with the number of rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from services.sandbox.sis.messages import RowChange, enrollment_row
from services.sandbox.sis.school import Enrollment, EnrollmentKey

_COLUMNS = tuple(enrollment_row(Enrollment(EnrollmentKey("", "", ""), "E", "ENRL"), "").fields)


def enrollments(rows: Sequence[RowChange]) -> bytes:
    """STDNT_ENRL of one term."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    writer.writerows([row.fields[name] for name in _COLUMNS] for row in rows)
    writer.writerow(["TRAILER", len(rows)])
    return text.getvalue().encode()
