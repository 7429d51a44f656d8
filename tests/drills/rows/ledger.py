"""The ledger's database."""

from __future__ import annotations

import contextlib
import time

import psycopg

from tests.drills.catalogue import NotRun, drill
from tests.drills.injectors import disk, firewall, signals
from tests.drills.world import World, lasting
from tests.e2e.arena import eventually


@drill("L1", "killed amid transactions", "SIGKILL of the ledger's PostgreSQL, three times amid traffic", smoke=True)
def l1(world: World) -> None:
    with world.traffic() as traffic:
        for share in (0.2, 0.4, 0.6):
            traffic.reach(share)
            world.ledger.kill()
            time.sleep(1)
            world.ledger.start()
        traffic.await_sent(120)


@drill(
    "L2",
    "unreachable after a 2xx",
    "failpoint after_call: SIGSTOP; the driver's link to the ledger cut (then: its packets vanish); SIGCONT",
    uses=["failpoints", "signals", "proxy", "firewall"],
)
def l2(world: World) -> None:
    for means in ("reset", "vanished"):
        driver = world.driver()
        number = world.consumers.index(driver) + 1
        link = world.network.links[f"ledger.{number}"]
        world.other(driver).stop()
        driver.restart(FAILPOINT="consumer.after_call:pause@10")
        with world.traffic(seconds=8) as traffic:
            eventually(lambda part=driver: signals.is_paused(part.pid), 60, "the failpoint stops the driver")  # type: ignore[misc]
            with contextlib.ExitStack() as away:
                if means == "reset":
                    link.toxins.refusing = True
                    link.reset()
                    away.callback(link.heal)
                else:
                    away.enter_context(firewall.vanished(link.port))
                signals.resume(driver.pid)
                time.sleep(lasting(15, 60))
            begun = time.monotonic()
            traffic.await_sent(120)
        world.seen[f"{means}: settled after s"] = round(time.monotonic() - begun, 1)


@drill("L3", "the database hangs", "SIGSTOP of the ledger's PostgreSQL with all its backends", uses=["signals"])
def l3(world: World) -> None:
    with world.traffic() as traffic:
        traffic.reach(0.4)
        with signals.paused(world.ledger.pid):
            begun = time.monotonic()
            # An intent that was committed before may still be sent: at most the lease's time later.
            time.sleep(7)
            before = len(world.canvas.writes())
            while time.monotonic() < begun + lasting(20, 60):
                time.sleep(0.2)
            calls = len(world.canvas.writes()) - before
        world.seen["calls without a ledger"] = calls
        assert calls == 0
        traffic.await_sent(120)


@drill(
    "L4",
    "lock waits, a full connection table",
    "another session locks all seats and people again and again; then every connection is taken",
)
def l4(world: World) -> None:
    with world.traffic(seconds=16) as traffic:
        traffic.reach(0.2)
        for _ in range(4):
            with psycopg.connect(world.ledger.url("ledger")) as connection:
                connection.execute("set search_path = ledger")
                connection.execute("select count(*) from (select from seat order by seat for update) locked")
                connection.execute("select count(*) from (select from person order by person desc for update) locked")
                time.sleep(2)
        taken = _take_every_connection(world)
        world.seen["connections taken"] = taken
        traffic.await_sent(120)


def _take_every_connection(world: World) -> int:
    """And have the services connect anew meanwhile."""
    with contextlib.ExitStack() as stack:
        taken = 0
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                connection = psycopg.connect(world.ledger.url("ledger"), connect_timeout=5)
                stack.callback(connection.close)
                taken += 1
        for number in (1, 2):
            world.network.links[f"ledger.{number}"].reset()
        time.sleep(8)
    assert taken > 20
    return taken


@drill("L5", "disk full", "the ledger's tmpfs filled to the last byte amid traffic", uses=["disk"])
def l5(world: World) -> None:
    if world.ledger_disk is None:
        raise NotRun("the ledger is not on a small disk")
    with world.traffic() as traffic:
        traffic.reach(0.3)
        with disk.full(world.ledger_disk) as taken:
            world.seen["bytes taken"] = taken
            deadline = time.monotonic() + 90
            while not _refuses(world):
                assert time.monotonic() < deadline, "the database writes on a full disk"
                time.sleep(0.5)
            world.seen["server survived"] = world.ledger.alive
            before = len(world.canvas.writes())
            time.sleep(lasting(12, 30))
            world.seen["calls meanwhile"] = len(world.canvas.writes()) - before
        if not world.ledger.alive:
            world.ledger.start()
        traffic.await_sent(120)


def _refuses(world: World) -> bool:
    try:
        with psycopg.connect(world.ledger.url("ledger"), connect_timeout=3, autocommit=True) as connection:
            connection.execute("create table if not exists drill_probe (text text)")
            connection.execute("alter table drill_probe alter text set storage external")
            connection.execute("insert into drill_probe select repeat('x', 100000) from generate_series(1, 200)")
    except psycopg.Error:
        return True
    return False


@drill(
    "L6", "restored from an older backup", "base backup; on with the traffic; SIGKILL; the backup in its place (same timeline)"
)
def l6(world: World) -> None:
    backup = world.data / "backup"
    with world.traffic(seconds=16) as traffic:
        traffic.reach(0.4)
        world.ledger.backup(backup)
        traffic.reach(0.8)
        time.sleep(2)
        ((before,),) = world.ledger_ask("select last_value from activity")
        world.ledger.kill()
        world.ledger.restore(backup)
        world.ledger.start()
        ((after,),) = world.ledger_ask("select last_value from activity")
        world.seen["transactions lost"] = int(before) - int(after)
        assert before > after
        world.await_recovery(90, "the ledger knows that it lost history")
        traffic.await_sent(120)
    world.await_recovered()


@drill(
    "L7",
    "fail-over loses the last commits",
    "streaming standby; its link cut; on with the traffic; SIGKILL of the primary; promotion (a new timeline)",
    uses=["proxy"],
)
def l7(world: World) -> None:
    replication = world.network.link("replication", ("127.0.0.1", world.ledger.port))
    standby = world.ledger.standby("ledger-standby", world.data / "standby", through=replication.port)
    standby.start()
    world.on_exit(standby.stop)
    with world.traffic(seconds=16) as traffic:
        traffic.reach(0.5)
        with replication.cut():
            traffic.reach(0.8)
            time.sleep(1)
            ((before,),) = world.ledger_ask("select last_value from activity")
            world.ledger.kill()
            replication.sever()
        standby.promote()
        old, world.ledger = world.ledger, standby
        world.on_exit(old.stop)
        world.ledger_disk = None
        for number in range(3):
            world.network.links[f"ledger.{number}"].aim(("127.0.0.1", standby.port))
        ((after,),) = world.ledger_ask("select last_value from activity")
        world.seen["transactions lost"] = int(before) - int(after)
        assert before > after, "nothing was lost: the drill proves nothing"
        world.await_recovery(90, "the ledger knows that it lost history")
        traffic.await_sent(120)
    world.await_recovered()
