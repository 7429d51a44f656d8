"""Merging users (``app/controllers/users_controller.rb#merge_into``). What it does is in `merging`."""

from __future__ import annotations

from services.sandbox.canvas import errors, merging, rendering
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.routing import Route


def merge_into(call: Call) -> Answer:
    """Cannot be taken back. The answer shows the user who stays."""
    source, target = call.user(), call.user(call.path["target"])
    call.caller.require("manage_user_logins")
    if source.fake_student or target.fake_student:
        raise errors.crash()
    merging.merge(call.world, source, target)
    return Answer(rendering.user(target, call.view))


ROUTES = [
    Route("PUT", "users/:user/merge_into/:target", "users.merge", merge_into),
    Route("PUT", "users/:user/merge_into/accounts/:account/users/:target", "users.merge", merge_into),
]
