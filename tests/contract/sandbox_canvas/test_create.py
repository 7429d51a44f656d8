"""Creating enrollments: the order and texts of the checks, and what a create does to a row that is there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.sandbox_canvas.conftest import Api

NO_USER = "Can't create an enrollment without a user. Include enrollment[user_id] to create an enrollment"
NO_SIS_ID = "Can't create an enrollment without a sis_user_id or integration_id when root_account is provided"
CONCLUDED = "Can't add an enrollment to a concluded course."
NOT_FOUND = {"errors": [{"message": "The specified resource does not exist."}]}
UNAUTHORIZED = {"status": "unauthorized", "errors": [{"message": "user not authorized to perform that action"}]}


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"type": "Student"}, "Invalid type"),
        ({"type": "StudentViewEnrollment"}, "Invalid type"),
        ({"type": "AccountAdmin"}, "Invalid type"),
        ({"role_id": "999"}, "Invalid role"),
        ({"role_id": "1"}, "Invalid role"),
        ({"role": "Nobody"}, "Invalid role"),
        ({"role": "Retired"}, "Cannot create an enrollment with this role because it is inactive."),
        ({"role": "Gone"}, "Invalid role"),
        ({"role": "Auditor", "type": "TeacherEnrollment"}, "The specified type must match the base type for the role"),
        ({"user_id": None}, NO_USER),
        ({"user_id": None, "type": "Student"}, f"Invalid type, {NO_USER}"),
        ({"user_id": "", "role": "Nobody"}, f"Invalid role, {NO_USER}"),
    ],
)
async def test_the_first_checks_are_collected_into_one_text(api: Api, wanted: dict[str, Any], text: str) -> None:
    """app/controllers/enrollments_api_controller.rb#create"""
    api.seed(roles=[{"name": "Retired", "state": "inactive"}, {"name": "Gone", "state": "deleted"}])
    answer = await api.create(**wanted)
    assert (answer.status_code, answer.json()) == (400, {"message": text})


async def test_without_parameters_nothing_else_is_checked(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#create"""
    answer = await api.call("POST", "sections/sis_section_id:S1/enrollments")
    assert (answer.status_code, answer.json()) == (400, {"message": "No parameters given"})


async def test_a_root_account_needs_a_sis_id(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#create"""
    body = {"enrollment": {"user_id": "1", "type": "Student"}, "root_account": "other.example"}
    answer = await api.call("POST", "sections/sis_section_id:S1/enrollments", json=body)
    assert answer.json() == {"message": f"Invalid type, {NO_SIS_ID}"}


@pytest.mark.parametrize(("status", "off"), [(403, False), (401, True)])
async def test_a_missing_right_is_403_or_401_by_feature(api: Api, status: int, off: bool) -> None:
    """lib/authentication_methods.rb#render_unauthorized_action; app/models/user.rb#can_create_enrollment_for?"""
    api.forbid("add_student_to_course")
    api.canvas.settings.unauthorized_status = 401 if off else 403
    answer = await api.create(user_id="sis_user_id:nobody")
    assert (answer.status_code, answer.json()) == (status, UNAUTHORIZED), "rights are checked before the user is looked for"
    assert (await api.create(type="TeacherEnrollment")).status_code == 200, "rights go by role type"


@pytest.mark.parametrize(
    ("course", "type_", "status"),
    [
        ({"template": True}, "TeacherEnrollment", 403),
        ({"blueprint": True}, "StudentEnrollment", 403),
        ({"blueprint": True}, "TeacherEnrollment", 200),
    ],
)
async def test_template_and_blueprint_courses_keep_people_out(api: Api, course: dict[str, Any], type_: str, status: int) -> None:
    """app/models/user.rb#can_create_enrollment_for?"""
    api.seed(courses=[{"sis_course_id": "C1"} | course])
    assert (await api.create(type=type_)).status_code == status


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("sections/sis_section_id:nowhere/enrollments", {}),
        ("courses/sis_course_id:nowhere/enrollments", {}),
        ("courses/sis_course_id:C1/enrollments", {"course_section_id": "sis_section_id:S3"}),
        ("courses/sis_course_id:C1/enrollments", {"course_section_id": "sis_section_id:nowhere"}),
        ("sections/sis_section_id:S1/enrollments", {"user_id": "sis_user_id:nobody"}),
        ("sections/sis_section_id:S1/enrollments", {"user_id": "999999"}),
        ("sections/sis_section_id:S1/enrollments", {"user_id": "hex:sis_user_id:zz"}),
    ],
)
async def test_whatever_is_missing_the_answer_is_the_same_404(api: Api, path: str, wanted: dict[str, Any]) -> None:
    """lib/api.rb#api_find; app/controllers/enrollments_api_controller.rb#create"""
    answer = await api.create(path, **wanted)
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize(
    "kinds",
    [
        {"sections": [{"sis_section_id": "S1", "course": "C1", "state": "deleted"}]},
        {"courses": [{"sis_course_id": "C1", "state": "deleted"}]},
        {"users": [{"sis_user_id": "U1", "login_state": "deleted"}]},
    ],
)
async def test_what_was_deleted_is_not_there(api: Api, kinds: dict[str, Any]) -> None:
    """app/controllers/enrollments_api_controller.rb#create; lib/api.rb#api_find"""
    api.seed(**kinds)
    assert (await api.create()).status_code == 404


async def test_a_user_without_a_live_login_cannot_be_enrolled_even_by_canvas_id(api: Api) -> None:
    """app/models/user.rb#can_be_enrolled_in_course?"""
    identity = api.seed(users=[{"sis_user_id": "U1", "login_state": "deleted"}])["users"]["U1"]
    assert (await api.create(user_id=str(identity))).status_code == 404


async def test_the_path_is_looked_up_before_the_checks(api: Api) -> None:
    """app/controllers/application_controller.rb#get_context"""
    assert (await api.create("sections/sis_section_id:nowhere/enrollments", type="Student")).status_code == 404
    assert (await api.create("courses/sis_course_id:C1/enrollments", type="Student", course_section_id="x")).status_code == 400


@pytest.mark.parametrize(
    "course", [{"state": "completed"}, {"end_at": "2020-01-01T00:00:00Z", "restrict_to_dates": True}], ids=["state", "own end"]
)
async def test_a_concluded_course_takes_nobody(api: Api, course: dict[str, Any]) -> None:
    """app/models/course.rb#concluded?"""
    api.seed(courses=[{"sis_course_id": "C1"} | course])
    answer = await api.create()
    assert (answer.status_code, answer.json()) == (400, {"message": CONCLUDED})


async def test_a_course_is_concluded_once_the_clock_passes_the_terms_end(api: Api) -> None:
    """app/models/course.rb#concluded?"""
    api.seed(terms=[{"sis_term_id": "F26", "end_at": "2026-12-18T00:00:00Z"}], courses=[{"sis_course_id": "C1", "term": "F26"}])
    api.canvas.clock.set(api.canvas.world.terms_by_sis["F26"].end_at, frozen=True)  # type: ignore[arg-type]
    assert (await api.create()).status_code == 200
    api.canvas.clock.advance(1)
    assert (await api.create(user_id="sis_user_id:U2")).json() == {"message": CONCLUDED}


async def test_somebody_in_a_concluded_course_may_move_to_an_open_section_of_it(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#create; app/models/course_section.rb#concluded?"""
    await api.enroll()
    api.seed(
        courses=[{"sis_course_id": "C1", "end_at": "2020-01-01T00:00:00Z", "restrict_to_dates": True}],
        sections=[{"sis_section_id": "S2", "course": "C1", "end_at": "2200-01-01T00:00:00Z", "restrict_to_dates": True}],
    )
    assert (await api.create("sections/sis_section_id:S2/enrollments")).status_code == 200
    assert (await api.create("sections/sis_section_id:S2/enrollments", user_id="sis_user_id:U2")).status_code == 400
    assert (await api.create("sections/sis_section_id:S1/enrollments")).status_code == 400


@pytest.mark.parametrize(
    ("type_", "observed", "message"),
    [
        ("StudentEnrollment", "U2", "only ObserverEnrollments may have an associated_user_id"),
        ("ObserverEnrollment", "U1", "Cannot observe yourself"),
    ],
)
async def test_validation_names_the_attribute(api: Api, type_: str, observed: str, message: str) -> None:
    """app/models/enrollment.rb, validations"""
    answer = await api.create(type=type_, associated_user_id=api.id_of(observed))
    assert answer.status_code == 400
    assert answer.json()["errors"]["associated_user_id"][0]["message"] == message
    assert not api.canvas.world.enrollments


@pytest.mark.parametrize("observed", ["sis_user_id:U2", "999999"])
async def test_whom_somebody_observes_is_named_by_canvas_own_id_only(api: Api, observed: str) -> None:
    """app/controllers/enrollments_api_controller.rb#create, app/models/course.rb#enroll_user: as it comes [inferred: 500]"""
    assert (await api.create(type="ObserverEnrollment", associated_user_id=observed)).status_code == 500
    assert not api.canvas.world.enrollments


async def test_two_people_do_not_observe_each_other_in_one_course(api: Api) -> None:
    """app/models/enrollment.rb#cant_observe_observer"""
    both = {"type": "ObserverEnrollment"}
    await api.enroll(user_id="sis_user_id:U1", associated_user_id=api.id_of("U2"), **both)
    refused = await api.create(user_id="sis_user_id:U2", associated_user_id=api.id_of("U1"), **both)
    assert refused.json()["errors"]["associated_user_id"][0]["message"] == "Cannot observe observer observing self"
    elsewhere = {"path": "sections/sis_section_id:S3/enrollments"}
    assert (
        await api.create(user_id="sis_user_id:U2", associated_user_id=api.id_of("U1"), **both, **elsewhere)
    ).status_code == 200


# What a create does.


async def test_success_is_200_with_the_whole_enrollment(api: Api) -> None:
    """lib/api/v1/user.rb#enrollment_json"""
    answer = await api.create()
    assert answer.status_code == 200
    body = answer.json()
    expected = {
        "type": "StudentEnrollment",
        "role": "StudentEnrollment",
        "role_id": 3,
        "enrollment_state": "active",
        "sis_user_id": "U1",
        "sis_section_id": "S1",
        "sis_course_id": "C1",
        "sis_import_id": None,
        "associated_user_id": None,
    }
    assert expected.items() <= body.items()
    assert "user" not in body, "the user is nested in lists only"
    assert body["html_url"] == f"http://canvas.test/courses/{body['course_id']}/users/{body['user_id']}"
    assert "grades" in body


@pytest.mark.parametrize(
    ("course_state", "type_", "asked", "stored"),
    [
        ("available", "StudentEnrollment", None, "invited"),
        ("available", "StudentEnrollment", "active", "active"),
        ("available", "StudentEnrollment", "inactive", "inactive"),
        ("available", "TeacherEnrollment", None, "invited"),
        ("available", "ObserverEnrollment", None, "active"),
        ("claimed", "StudentEnrollment", None, "creation_pending"),
        ("claimed", "StudentEnrollment", "invited", "creation_pending"),
        ("claimed", "StudentEnrollment", "active", "active"),
        ("claimed", "TeacherEnrollment", None, "invited"),
        ("claimed", "TaEnrollment", "creation_pending", "invited"),
        ("claimed", "TeacherEnrollment", "active", "active"),
        ("available", "StudentEnrollment", "anything", "anything"),
    ],
)
async def test_the_state_follows_what_was_asked_and_whether_the_course_is_published(
    api: Api, course_state: str, type_: str, asked: str | None, stored: str
) -> None:
    """app/models/course.rb#enroll_user"""
    api.seed(courses=[{"sis_course_id": "C1", "state": course_state}])
    assert (await api.enroll(type=type_, enrollment_state=asked))["enrollment_state"] == stored


FUTURE = {"start_at": "2190-01-01T00:00:00Z", "end_at": "2190-06-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("existing", "future", "asked", "stored"),
    [
        ("active", False, "inactive", "active"),
        ("active", False, None, "active"),
        ("active", True, None, "invited"),
        ("active", True, "active", "active"),
        ("invited", False, "active", "active"),
        ("creation_pending", False, "active", "active"),
        ("inactive", False, "active", "active"),
        ("inactive", False, None, "invited"),
        ("completed", False, "active", "active"),
        ("rejected", False, "active", "active"),
        ("deleted", False, "active", "active"),
        ("deleted", False, None, "invited"),
    ],
)
async def test_a_second_create_finds_the_row_and_only_an_effectively_active_one_keeps_its_state(
    api: Api, existing: str, future: bool, asked: str | None, stored: str
) -> None:
    """app/models/course.rb#enroll_user"""
    dates = FUTURE if future else {}
    row = api.seed(enrollments=[{"section": "S1", "user": "U1", "state": existing, "sis_import_id": 7, **dates}])["enrollments"][
        0
    ]
    body = await api.enroll(enrollment_state=asked)
    assert body["id"] == row
    assert body["enrollment_state"] == stored
    assert body["sis_import_id"] == (None if existing == "deleted" else 7), "only a revival strips the SIS's ownership"
    assert len(api.canvas.world.enrollments) == 1


async def test_a_repeated_create_wipes_dates_limit_and_login_and_makes_dates_sticky(api: Api) -> None:
    """app/models/course.rb#enroll_user; lib/sticky_sis_fields.rb"""
    row = api.seed(enrollments=[{"section": "S1", "user": "U1", "sis_import_id": 7, **FUTURE}])["enrollments"][0]
    stored = api.canvas.world.enrollments[row]
    stored.limit_privileges = True
    body = await api.enroll()
    assert (body["start_at"], body["end_at"], body["limit_privileges_to_course_section"]) == (None, None, False)
    assert stored.sis_pseudonym is None
    assert stored.stuck_sis_fields == {"start_at", "end_at"}


async def test_role_section_and_observed_person_make_rows_of_their_own(api: Api) -> None:
    """app/models/course.rb#enroll_user, the key of the look-up"""
    rows = [
        await api.enroll(),
        await api.enroll(type="TeacherEnrollment"),
        await api.enroll(type=None, role="Auditor"),
        await api.enroll("sections/sis_section_id:S2/enrollments"),
        await api.enroll(type="ObserverEnrollment"),
        await api.enroll(type="ObserverEnrollment", associated_user_id=api.id_of("U2")),
    ]
    assert len({row["id"] for row in rows}) == len(rows)
    auditor = rows[2]
    assert (auditor["type"], auditor["role"]) == ("StudentEnrollment", "Auditor")


async def test_a_custom_role_may_be_named_by_its_id(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#create; app/models/role.rb"""
    roles = {role["role"]: role for role in (await api.get("accounts/self/roles", per_page=100)).json()}
    assert (roles["Auditor"]["base_role_type"], roles["Auditor"]["workflow_state"]) == ("StudentEnrollment", "active")
    assert roles["StudentEnrollment"]["workflow_state"] == "built_in"
    body = await api.enroll(type="StudentEnrollment", role_id=str(roles["Auditor"]["id"]))
    assert (body["role"], body["role_id"]) == ("Auditor", roles["Auditor"]["id"])


async def test_a_course_path_without_a_section_uses_the_default_section(api: Api) -> None:
    """app/models/course.rb#default_section"""
    body = await api.enroll(path="courses/sis_course_id:C1/enrollments")
    assert body["sis_section_id"] == "S1"
    assert (await api.enroll(path="courses/sis_course_id:C1/enrollments", course_section_id="sis_section_id:S2"))[
        "sis_section_id"
    ] == "S2"


@pytest.mark.parametrize("sis_id", ["a/b", "a b", "50%", "a?b#c", "x.json", "Ünïcode→", "a.b", "x" * 255])
async def test_odd_sis_ids_work_percent_encoded_and_in_hex(api: Api, sis_id: str) -> None:
    """lib/api.rb; spec/apis/v1/enrollments_api_spec.rb"""
    api.seed(sections=[{"sis_section_id": sis_id, "course": "C1"}], users=[{"sis_user_id": sis_id}])
    encoded = "".join(f"%{byte:02X}" for byte in sis_id.encode())
    section, user = f"hex:sis_section_id:{sis_id.encode().hex()}", f"hex:sis_user_id:{sis_id.encode().hex()}"
    first = await api.enroll(path=f"sections/{section}/enrollments", user_id=user)
    assert (first["sis_section_id"], first["sis_user_id"]) == (sis_id, sis_id)
    again = await api.enroll(path=f"sections/sis_section_id:{encoded}/enrollments", user_id=f"sis_user_id:{sis_id}")
    assert again["id"] == first["id"]


async def test_multipart_forms_work_like_json(api: Api) -> None:
    """Upstream's documentation shows every call as ``curl -F``."""
    form = {
        "enrollment[user_id]": (None, "sis_user_id:Ü1"),
        "enrollment[enrollment_state]": (None, "inactive"),
        "enrollment[type]": (None, "StudentEnrollment"),
    }
    api.seed(users=[{"sis_user_id": "Ü1"}])
    answer = await api.call("POST", "sections/sis_section_id:S1/enrollments", files=form)
    assert (answer.json()["enrollment_state"], answer.json()["sis_user_id"]) == ("inactive", "Ü1")


async def test_forms_work_like_json(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#create, as its documentation calls it"""
    form = {
        "enrollment[user_id]": "sis_user_id:U1",
        "enrollment[type]": "StudentEnrollment",
        "enrollment[enrollment_state]": "active",
    }
    answer = await api.call("POST", "sections/sis_section_id:S1/enrollments", data=form)
    assert answer.json()["enrollment_state"] == "active"
