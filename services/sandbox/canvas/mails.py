"""Which mails a create sends, and which it only schedules (the broadcast policies in ``app/models``)."""

from __future__ import annotations

from services.sandbox.canvas import channels
from services.sandbox.canvas.dates import dated_state, effective_state, windows
from services.sandbox.canvas.state import Enrollment, Mail, User
from services.sandbox.canvas.world import World


def after_create(world: World, row: Enrollment, before: str | None, *, notify: bool) -> None:
    """With `notify`, an invitation, a registration or a notice at once; without it, perhaps an invitation at the start."""
    if row.self_enrolled:
        return
    observer = row.type == "ObserverEnrollment"
    now = world.clock.now()
    newly_invited = row.state == "invited" and before != "invited"
    if newly_invited and not (observer and row.user.state == "registered") and _is_scheduled(world, row):
        start = min(start for start, _ in windows(row) if start)
        world.mails.append(Mail("enrollment_invitation", row.user, start, at_once=False, enrollment=row))
    if not notify:
        return
    if newly_invited and row.user.state != "registered":
        world.mails.append(Mail("enrollment_registration", row.user, now, at_once=True, enrollment=row))
    elif newly_invited and not observer and effective_state(row, now) != "inactive":
        world.mails.append(Mail("enrollment_invitation", row.user, now, at_once=True, enrollment=row))
    elif before is None and not observer and row.course.state != "created" and effective_state(row, now) == "active":
        world.mails.append(Mail("enrollment_notification", row.user, now, at_once=True, enrollment=row))


def of_new_user(world: World, user: User, address: str, *, asked: bool) -> None:
    """To an address that was not taken as confirmed: what was `asked` for, else a word if somebody else has the address, too
    (``app/models/users/creation_notify_policy.rb``)."""
    if asked:
        kind = "pseudonym_registration_done" if user.state == "registered" else "pseudonym_registration"
    elif channels.is_somebody_elses(world, user, address):
        kind = "merge_email_communication_channel"
    else:
        return
    world.mails.append(Mail(kind, user, world.clock.now(), at_once=True))


def _is_scheduled(world: World, row: Enrollment) -> bool:
    now = world.clock.now()
    if not dated_state(row, now).startswith("pending_"):
        return False
    match world.assumptions.invitation_at_start:
        case "always":
            return True
        case "hidden":
            return effective_state(row, now) == "inactive"
    return False


def is_sent(world: World, mail: Mail) -> bool:
    """A scheduled invitation goes out at the start, if the person is still invited then."""
    still_invited = mail.enrollment is not None and mail.enrollment.state == "invited"
    return mail.at_once or (mail.due <= world.clock.now() and still_invited)
