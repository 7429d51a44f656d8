"""The bodies of refusals that all objects share."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.sandbox_canvas.conftest import Api

IN_USE = 'SIS ID "C1" is already in use'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("accounts/self/courses", {"course": {"name": "Again", "sis_course_id": "C1"}}),
        ("courses/sis_course_id:C2/sections", {"course_section": {"name": "Again", "sis_section_id": "C1"}}),
        ("accounts/self/terms", {"enrollment_term": {"name": "Again", "sis_term_id": "C1"}}),
        ("accounts/self/sub_accounts", {"account": {"name": "Again", "sis_account_id": "C1"}}),
    ],
)
async def test_an_error_that_is_a_text_has_the_text_for_a_type_too(api: Api, path: str, body: dict[str, Any]) -> None:
    """config/initializers/active_model_errors.rb#format_error_message; app/models/course_section.rb, enrollment_term.rb and
    account.rb: verify_unique_sis_source_id, course.rb: verify_unique_ids. Only logins say ``taken``"""
    api.seed(
        accounts=[{"sis_account_id": "C1"}],
        terms=[{"sis_term_id": "C1"}],
        sections=[{"sis_section_id": "C1", "course": "C1"}],
    )
    refused = await api.call("POST", path, json=body)
    problem = {"attribute": "sis_source_id", "type": IN_USE, "message": IN_USE}
    assert (refused.status_code, refused.json()) == (400, {"errors": {"sis_source_id": [problem]}})
