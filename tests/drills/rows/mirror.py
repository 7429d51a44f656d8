"""The mirror's database: what the publisher does when it comes back with less than the log has seen."""

from __future__ import annotations

import time

import psycopg

from tests.drills.catalogue import drill
from tests.drills.world import World
from tests.e2e.arena import eventually


def _newest(world: World) -> float:
    """When the mirror last changed, epoch seconds. Not its highest version: a raised floor holds that for a minute."""
    ((changed,),) = world.arena.mirror("select coalesce(extract(epoch from max(updated_at)), 0)::float8 from entity")
    return float(changed)


@drill(
    "M1",
    "the mirror restored from an older dump",
    "pg_dump; on with the traffic; the database dropped and the dump loaded into a new one on the same server",
)
def m1(world: World) -> None:
    dump = world.data / "mirror.dump"
    with world.traffic(seconds=16, timeout_seconds=20) as traffic:
        traffic.reach(0.4)
        world.mirror.dump("mirror", dump)
        traffic.reach(0.8)
        time.sleep(2)
        before = _newest(world)
        world.mirror.load("mirror", dump)
        assert _newest(world) < before, "nothing was lost: the drill proves nothing"
        world.seen["seconds of changes lost"] = round(before - _newest(world), 1)
        traffic.await_sent(180)
        traffic.say_everything_again()


@drill(
    "M2",
    "the mirror's fail-over loses the last commits",
    "streaming standby; its link cut; on with the traffic; SIGKILL of the primary; promotion (a new timeline)",
    uses=["proxy"],
)
def m2(world: World) -> None:
    replication = world.network.link("mirror-replication", ("127.0.0.1", world.mirror.port))
    standby = world.mirror.standby("mirror-standby", world.data / "mirror-standby", through=replication.port)
    standby.start()
    world.on_exit(standby.stop)
    with world.traffic(seconds=16, timeout_seconds=20) as traffic:
        traffic.reach(0.5)
        with replication.cut():
            at_the_cut = _newest(world)
            traffic.reach(0.8)
            eventually(lambda: _newest(world) > at_the_cut, 30, "the primary goes on without its standby")
            before = _newest(world)
            world.mirror.kill()
            replication.sever()
        standby.promote()
        old, world.mirror = world.mirror, standby
        world.on_exit(old.stop)
        for number in range(3):
            world.network.links[f"mirror.{number}"].aim(("127.0.0.1", standby.port))
        assert _newest(world) < before, "nothing was lost: the drill proves nothing"
        world.seen["seconds of changes lost"] = round(before - _newest(world), 1)
        traffic.await_sent(180)
        traffic.say_everything_again()


@drill("M3", "an empty new mirror", "the mirror's schema dropped amid traffic")
def m3(world: World) -> None:
    with world.traffic(seconds=16, timeout_seconds=20) as traffic:
        traffic.reach(0.6)
        with psycopg.connect(world.mirror.url("mirror"), autocommit=True) as connection:
            connection.execute("drop schema mirror cascade")
        # A schema that is gone is nothing that a publisher mends while it runs: it is given an empty database and started.
        for part in world.publishers:
            part.restart()
        traffic.await_sent(180)
        traffic.say_everything_again()
    world.seen["entities at the end"] = world.arena.mirror("select count(*) from entity")[0][0]
