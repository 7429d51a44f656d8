"""One user becomes a part of another (``lib/user_merge.rb``): what happens to enrollments, logins and links.

Rows of both users that would have one key meet: the better state wins, but the columns of an import stay with their own row. So a
row that a SIS import made for the user who goes away may end up deleted, while a row made by hand carries its state on.
"""

from __future__ import annotations

from services.sandbox.canvas.state import Enrollment, User
from services.sandbox.canvas.world import World

_BETTER_FIRST = ("active", "invited", "creation_pending", "completed", "rejected", "inactive", "deleted")
Meeting = tuple[str, int, int, int | None]


def merge(world: World, source: User, target: User) -> None:
    """Everything of `source` goes to `target`, who keeps the names; `source` is deleted and remembers where it went."""
    if source is target:
        return
    touched: list[Enrollment] = []
    _move_observed(world, source, target, touched)
    _move_own(world, source, target, touched)
    _move_links(source, target)
    for login in list(source.pseudonyms):
        login.user = target
        target.pseudonyms.append(login)
    source.pseudonyms.clear()
    source.merged_into, source.state = target, "deleted"
    for row in source.enrollments:
        _become(world, row, "deleted", touched)
    world.journal.record(touched)


def _move_observed(world: World, source: User, target: User, touched: list[Enrollment]) -> None:
    """Rows of people who observe them."""
    rows = [row for row in world.enrollments.values() if row.associated_user in (source, target)]
    _settle(world, [row for row in rows if row.associated_user is source], rows, "user", touched)
    for row in rows:
        if row.associated_user is source and row.state != "deleted":
            if row.user is target:
                _become(world, row, "deleted", touched)  # nobody observes themselves
            else:
                world.rekey(row, associated=target)
                row.updated_at = world.clock.now()


def _move_own(world: World, source: User, target: User, touched: list[Enrollment]) -> None:
    _settle(world, source.enrollments, [*source.enrollments, *target.enrollments], "associated_user", touched)
    for row in list(source.enrollments):
        if row.state == "deleted":
            continue
        if row.associated_user is target:
            _become(world, row, "deleted", touched)
        else:
            world.rekey(row, user=target)
            row.updated_at = world.clock.now()


def _settle(world: World, leaving: list[Enrollment], rows: list[Enrollment], other: str, touched: list[Enrollment]) -> None:
    """Where rows of both would have one key, the target's takes the better state and the source's is deleted."""
    staying: dict[Meeting, list[Enrollment]] = {}
    for row in rows:
        if row not in leaving:
            staying.setdefault(_meeting(row, other), []).append(row)
    for row in leaving:
        for rival in staying.get(_meeting(row, other), []):
            if _rank(row) < _rank(rival) and rival.state != row.state:
                rival.state = row.state  # a bare update: ``updated_at`` stays
                touched.append(rival)
            _become(world, row, "deleted", touched)


def _meeting(row: Enrollment, other: str) -> Meeting:
    """All of a key but the person that is being merged."""
    person: User | None = getattr(row, other)
    return row.type, row.role.id, row.section.id, person.id if person else None


def _rank(row: Enrollment) -> tuple[int, float]:
    """Smaller is better: by state, then the one that was written last."""
    return _BETTER_FIRST.index(row.state) if row.state in _BETTER_FIRST else len(_BETTER_FIRST), -row.updated_at.timestamp()


def _become(world: World, row: Enrollment, state: str, touched: list[Enrollment]) -> None:
    if row.state != state:
        row.state, row.updated_at = state, world.clock.now()
        touched.append(row)


def _move_links(source: User, target: User) -> None:
    """Observers of either observe the one who stays; nobody observes themselves."""
    for observer in source.observers:
        if observer is not target and observer not in target.observers:
            target.observers.append(observer)
    source.observers.clear()
    if source in target.observers:
        target.observers.remove(source)
