"""Access tokens: whose they are, what they may do, and whether they still work (``lib/authentication_methods.rb``)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

from services.sandbox.canvas import errors
from services.sandbox.canvas.state import COURSE_TYPES, TEST_STUDENT_TYPE, User

TokenState = Literal["active", "expired", "revoked"]

_KINDS = tuple(name.removesuffix("Enrollment").lower() for name in COURSE_TYPES)
PERMISSIONS = frozenset(
    {
        "read_roster",  # rosters of others
        "read_as_admin",  # lists include inactive rows by default
        "read_reports",  # activity fields
        "read_email_addresses",  # the address of a user
        "view_user_logins",  # what a user signs in with
        "read_sis",  # SIS ids are visible
        "manage_sis",  # SIS ids may be set, sis_import_id is visible
        "manage_account_settings",
        "manage_role_overrides",  # roles are listed
        "manage_course_content_edit",
        "manage_courses_add",
        "manage_courses_admin",  # courses are changed, and take sections of others
        "manage_courses_publish",
        "manage_courses_conclude",
        "manage_courses_delete",
        "undelete_courses",
        "manage_sections_add",
        "manage_sections_edit",
        "manage_sections_delete",
        "manage_user_observers",
        "manage_students",  # an address of a new user may be taken as confirmed
        "manage_user_logins",  # users and their logins are made, seen, renamed, suspended, deleted, merged
        "allow_course_admin_actions",  # needed to remove one's own enrollment
        "use_student_view",  # remove a test student's enrollment
    }
    | {f"{verb}_{kind}_{side}_course" for kind in _KINDS for verb, side in (("add", "to"), ("remove", "from"))}
)
"""The permissions the modelled endpoints ask for (names: ``role_overrides_controller.rb#add_role``); a new token has them all.

Installations before 2024 may have ``manage_courses`` in place of the finer ones; what a client should ask about is in both.
"""


def permission_to_add(enrollment_type: str) -> str:
    """The granular right to create an enrollment of one type."""
    return f"add_{enrollment_type.removesuffix('Enrollment').lower()}_to_course"


def permission_to_remove(enrollment_type: str) -> str:
    """The granular right to delete, conclude, deactivate or reactivate an enrollment of one type."""
    if enrollment_type == TEST_STUDENT_TYPE:
        return "use_student_view"
    return f"remove_{enrollment_type.removesuffix('Enrollment').lower()}_from_course"


@dataclass(slots=True, eq=False)
class Token:
    """One access token. Logs and counters show the alias, never the secret."""

    alias: str
    user: User
    permissions: frozenset[str] = PERMISSIONS
    state: TokenState = "active"
    endpoints: frozenset[str] | None = None
    """Of a scoped developer key: the only endpoints it may call; None means all."""

    def may(self, permission: str) -> bool:
        return permission in self.permissions


class Caller(NamedTuple):
    """Who asks, and how a refusal for lack of rights looks today."""

    token: Token
    unauthorized_status: int

    def require(self, permission: str) -> None:
        """Raise 403 or 401 unless the token has the permission."""
        if not self.token.may(permission):
            raise errors.unauthorized(self.unauthorized_status)


class Tokens:
    """Known tokens by the hash of their secret."""

    def __init__(self) -> None:
        self._by_hash: dict[bytes, Token] = {}

    def add(self, secret: str, token: Token) -> None:
        """Know `token` from now on; the same secret again replaces it."""
        self._by_hash[hashed(secret)] = token

    def by_alias(self, alias: str) -> Token | None:
        """For the control side."""
        return next((token for token in self._by_hash.values() if token.alias == alias), None)

    def known(self, secret: str | None) -> Token | None:
        """The token of a secret, whatever its state."""
        return self._by_hash.get(hashed(secret)) if secret else None

    def authenticate(self, secret: str | None) -> Token:
        """The live token of a secret; raises the 401 that upstream answers."""
        if not secret:
            raise errors.unauthenticated()
        token = self.known(secret)
        if token is None:
            raise errors.unauthenticated("Invalid access token.")
        if token.state != "active":
            raise errors.unauthenticated(f"{token.state.capitalize()} access token.")
        return token


def hashed(secret: str) -> bytes:
    """What identifies a token without keeping it."""
    return hashlib.sha256(secret.encode()).digest()
