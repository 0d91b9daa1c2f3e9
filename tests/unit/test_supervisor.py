"""The supervisor with workers that are not processes and a clock that the test turns; at the end a few real ones."""

import logging
import os
import select
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from hermes.dispatch.pool import Pool
from hermes.dispatch.shares import Claim
from hermes.errors import PoolDown
from hermes.workers import supervisor as module
from hermes.workers.messages import Kind, frame
from hermes.workers.restart import PERIOD, PROBE
from hermes.workers.supervisor import BOOT_TIMEOUT, Supervisor
from tests.unit.fakes import FakeChild, hire

READY = frame(Kind.READY)


class YoungChild(FakeChild):
    """Says READY once."""

    arrived = False

    def arrive(self) -> None:
        if not self.arrived and self.process.exitcode is None and not self.closed:
            self.arrived = True
            self.say(READY)


class World:
    """A supervisor, one pool, and the workers it has started so far."""

    def __init__(self, new_child, monkeypatch):
        self.now = 1000.0
        self.started: list[FakeChild] = []
        self.stopped = self.immortal = self.cannot_start = False
        self.closes: list[float] = []
        self._new_child = new_child
        self.supervisor = Supervisor()
        self.pool = Pool("m", "m", 1, 4, self.supervisor.wake)
        close = self.pool.close
        self.pool.close = lambda reason, reopens: (self.closes.append(reopens), close(reason, reopens))
        monkeypatch.setattr(module, "Child", SimpleNamespace(start=self._start))
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def _start(self, name: str) -> FakeChild:
        if self.cannot_start:
            raise BlockingIOError(11, "no more processes")
        self.now += 0.001
        self.started.append(self._new_child(YoungChild, started=self.now, stopped=self.stopped, immortal=self.immortal))
        return self.started[-1]

    def supervise(self, size: int) -> None:
        self.pool.resize(size, 8)
        self.supervisor.supervise(self.pool)
        self.step()

    def step(self, turns: int = 3) -> None:
        """What is due now, without waiting."""
        for _ in range(turns):
            self.supervisor.step(self.now)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.step()

    def ready(self) -> None:
        """Every worker that is on its way arrives."""
        for child in self.started:
            child.arrive()
        self.step()

    @property
    def starting(self) -> int:
        return sum(self.supervisor.starting().values())

    def idle(self) -> int:
        return self.pool.snapshot().idle

    def die_again_and_again(self, times: int = 5) -> None:
        """The newest worker dies as soon as it is there."""
        for _ in range(times):
            self.ready()
            self.started[-1].die()
            self.step()
            self.later(2.1)


@pytest.fixture
def world(new_child, monkeypatch):
    world = World(new_child, monkeypatch)
    yield world
    for number in (world.supervisor.wake_reader, world.supervisor.wake_fd):
        os.close(number)


def test_keeps_the_pool_full(world: World) -> None:
    world.supervise(3)
    assert (len(world.started), world.starting, world.idle()) == (3, 3, 0)
    world.started[1].say(READY)
    world.step()
    assert (world.starting, world.idle()) == (2, 1)
    world.ready()
    assert (len(world.started), world.starting, world.idle()) == (3, 0, 3)


def test_half_a_ready_is_none(world: World) -> None:
    world.supervise(1)
    world.started[0].say(READY[:4])
    world.step()
    assert (world.starting, world.idle()) == (1, 0)
    world.started[0].say(READY[4:])
    world.step()
    assert (world.starting, world.idle()) == (0, 1)


@pytest.mark.parametrize("said", [b"\xff" * 5, None])
def test_boot_that_fails(world: World, said: bytes | None) -> None:
    world.supervise(1)
    if said:
        world.started[0].say(said)
    else:
        world.started[0].far.close()
    world.step()
    assert world.started[0].killed and world.started[0].closed
    assert len(world.started) == 2 and world.idle() == 0


def test_ready_and_dead_in_one_turn(world: World) -> None:
    world.supervise(1)
    world.started[0].say(READY)
    world.started[0].die()
    world.step()
    assert world.started[0].closed and world.idle() == 0 and len(world.started) == 2


def test_boot_timeout(world: World, caplog) -> None:
    world.immortal = True
    world.supervise(1)
    world.later(BOOT_TIMEOUT - 0.1)
    assert not world.started[0].killed
    world.later(0.2)
    assert world.started[0].killed and len(world.started) == 1, "no replacement before it has been reaped"
    world.started[0].die()
    world.step()
    assert len(world.started) == 2


def test_a_worker_that_sigkill_takes_long_to_end_is_reported_once(world: World, caplog) -> None:
    """In an uninterruptible sleep it stays; the loop must neither spin nor fill the log."""
    world.immortal = True
    world.supervise(1)
    with caplog.at_level(logging.ERROR, "hermes.supervisor"):
        world.later(BOOT_TIMEOUT + 1)
    assert sum("did not start" in record.message for record in caplog.records) == 1


def test_death_of_an_idle_worker(world: World) -> None:
    world.supervise(2)
    world.ready()
    world.started[0].die()
    world.step()
    assert world.started[0].closed and world.idle() == 1 and world.pool.snapshot().restarts == 1
    world.ready()
    assert world.idle() == 2 and len(world.started) == 3


@pytest.mark.parametrize(("code", "text"), [(-9, "signal=SIGKILL"), (-11, "signal=SIGSEGV"), (3, "code=3"), (0, "code=0"), (-40, "code=-40")])
def test_how_a_worker_died_is_logged_once(world: World, caplog, code: int, text: str) -> None:
    world.supervise(1)
    world.ready()
    world.started[0].die(code)
    world.step()
    assert [record.getMessage() for record in caplog.records if "died" in record.getMessage()] == [f"worker died pool=m pid={1 << 30} {text}"]


def test_pipe_of_a_leased_worker_is_the_leases(world: World, new_pair) -> None:
    world.supervise(1)
    world.ready()
    child = hire(world.pool, new_pair()[0], 0)
    child.die()
    world.step()
    assert not child.closed and child.process.sentinel == -1, "reaped, but its pipe is left to the lease"
    world.ready()
    assert world.idle() == 1


def test_pauses_between_restarts(world: World) -> None:
    world.supervise(1)
    for pause in (0.0, 0.25, 0.5, 1.0):
        count = len(world.started)
        world.started[-1].die()
        world.step()
        if pause:
            assert len(world.started) == count
            world.later(pause - 0.01)
            assert len(world.started) == count
            world.later(0.02)
        assert len(world.started) == count + 1


def test_giving_up_and_trying_again(world: World) -> None:
    world.supervise(1)
    world.die_again_and_again()
    count = len(world.started)
    assert world.pool.snapshot().closed and count == 5
    world.later(PROBE - 3)
    assert len(world.started) == count
    world.later(4)
    assert len(world.started) == count + 1 and world.pool.snapshot().closed
    world.ready()
    assert world.pool.snapshot().closed is None and world.idle() == 1


def test_hopeless_only_if_no_worker_ever_stood(world: World, new_child) -> None:
    world.supervise(1)
    other = Pool("other", "other", 1, 4, world.supervisor.wake)
    world.supervisor.supervise(other)
    world.step()
    assert not world.supervisor.hopeless
    for _ in range(5):
        assert not world.supervisor.hopeless
        for child in world.started:
            child.die()
        world.step()
        world.later(2.1)
    assert world.supervisor.hopeless
    world.later(PROBE)
    world.ready()
    assert not world.supervisor.hopeless
    world.die_again_and_again(10)
    assert not world.supervisor.hopeless


def test_a_probe_is_one_worker_whatever_the_size(world: World) -> None:
    world.supervise(4)
    for _ in range(5):
        for child in world.started:
            child.die()
        world.step()
        world.later(2.1)
    assert world.pool.snapshot().closed and len(world.started) == 20
    world.later(PROBE)
    assert len(world.started) == 21
    world.ready()
    assert world.pool.snapshot().closed is None and len(world.started) == 24


def test_a_probe_that_fails_closes_the_pool_for_another_rest(world: World) -> None:
    """And the pool must know until when: Retry-After is computed from it."""
    world.supervise(1)
    world.die_again_and_again()
    world.later(PROBE)
    world.started[-1].die()
    world.step()
    count = len(world.started)
    world.later(PROBE - 5)
    assert len(world.started) == count and world.pool.snapshot().closed
    assert world.closes[-1] > world.now


def test_a_pool_that_was_given_up_with_a_healthy_worker_comes_back(world: World) -> None:
    """Of two workers one dies again and again, the other is fine all the time."""
    world.supervise(2)
    world.ready()
    world.die_again_and_again()
    assert world.idle() >= 1
    for _ in range(3):
        world.later(PERIOD + PROBE)
        world.ready()
    assert world.pool.snapshot().closed is None and world.idle() == 2


def test_a_pool_that_is_retired_when_it_was_given_up_is_nothing_to_look_at(world: World) -> None:
    """The one worker that is left does not leave: until it is killed the loop would turn as fast as it can."""
    world.stopped = True
    world.supervise(2)
    world.ready()
    world.stopped = False
    world.die_again_and_again()
    crew, = world.supervisor._crews
    world.later(crew.resting_until - world.now - 1)
    world.pool.resize(0, 4)
    world.step()
    world.later(2)
    assert crew.leaving and crew.next_time() == min(crew.leaving.values()) > world.now


def test_no_process_to_be_had(world: World) -> None:
    world.cannot_start = True
    world.supervise(2)
    for _ in range(20):
        world.later(2.1)
    assert world.pool.snapshot().closed
    world.cannot_start = False
    world.later(PROBE + 1)
    world.ready()
    world.ready()
    assert world.pool.snapshot().closed is None and world.idle() == 2


def test_shrink_and_retire(world: World) -> None:
    world.supervise(3)
    world.ready()
    world.pool.resize(1, 4)
    world.step()
    assert world.idle() == 1 and sum(child.closed for child in world.started) == 2
    assert world.pool.snapshot().restarts == 0 and len(world.started) == 3
    world.pool.resize(0, 4)
    world.step()
    assert all(child.closed for child in world.started)
    assert world.supervisor.starting() == {}, "it is forgotten when its last worker has left"


def test_whoever_comes_to_a_pool_that_has_ended_is_told(world: World) -> None:
    """He has found the pool before the reload that retired it, or his worker has died since."""
    world.supervise(1)
    world.ready()
    world.pool.resize(0, 4)
    world.step()
    assert world.supervisor.starting() == {}
    with pytest.raises(PoolDown):
        world.pool.enter(Claim(), 60.0)


def test_whoever_comes_to_a_pool_that_has_not_ended_gets_a_worker(world: World) -> None:
    world.supervise(1)
    world.ready()
    world.pool.resize(0, 4)
    world.supervisor._drain_wake()
    world.pool._caps.apply({"x": 0})
    ticket = world.pool.enter(Claim("x"), 60.0)
    assert select.select([world.supervisor.wake_reader], [], [], 0)[0], "the supervisor has to learn that one is wanted"
    world.step()
    assert world.idle() == 1
    world.pool.leave(ticket)
    assert select.select([world.supervisor.wake_reader], [], [], 0)[0], "and that it is not"
    world.step()
    assert world.started[0].closed and world.supervisor.starting() == {}


def test_a_surplus_worker_that_does_not_leave_holds_no_place(world: World) -> None:
    """Stopped by SIGSTOP it never reads the end of file."""
    world.stopped = True
    world.supervise(2)
    world.ready()
    world.stopped = False
    world.pool.resize(1, 4)
    world.step()
    left = next(child for child in world.started if not child.closed)
    left.die()
    for _ in range(5):
        world.later(20)
        world.ready()
    assert world.idle() == 1


def test_wake_never_blocks_and_always_wakes(world: World) -> None:
    for _ in range(70_000):
        world.supervisor.wake()
    world.supervisor.step(float("inf"))             # returns at once, or hangs


@pytest.mark.parametrize("stopped", [False, True])
def test_stop(world: World, new_pair, stopped: bool) -> None:
    """Idle and starting workers are asked to leave, the others are killed; who does not leave is killed as well."""
    world.stopped = stopped
    world.supervise(2)
    world.ready()
    busy = hire(world.pool, new_pair()[0], 0)
    world.pool.resize(3, 4)
    world.step()
    idle, young = next(child for child in world.started[:2] if child is not busy), world.started[2]
    world.supervisor.stop(world.now if stopped else world.now + 1)
    assert busy.killed and idle.closed and young.closed
    assert (idle.killed, young.killed) == ((1, 1) if stopped else (0, 0))
    assert all(child.process.sentinel == -1 for child in world.started), "all are reaped"


def test_stop_rests_until_somebody_has_left(world: World, monkeypatch) -> None:
    """The places of those who have left already are no work for it."""
    world.supervise(2)
    world.ready()
    last = world.started[-1]
    last.stopped = True
    waits: list[float | None] = []
    wait = module.connection.wait
    monkeypatch.setattr(module, "connection", SimpleNamespace(wait=lambda those, timeout: (waits.append(timeout), wait(those, timeout))[1]))
    threading.Timer(0.1, last.die).start()
    world.supervisor.stop(world.now + 10)
    assert len(waits) < 10 and 0.0 not in waits


def test_stop_reads_no_closed_pipe(world: World) -> None:
    """A starting worker's pipe has been closed: its number may be somebody else's by now."""
    world.stopped = True
    world.supervise(1)
    young = world.started[0]
    threading.Timer(0.1, young.die).start()
    world.supervisor.stop(world.now + 1)
    assert young.closed and not young.read_after_close


def test_real_workers(monkeypatch) -> None:
    """Two real processes: they come, one is killed and replaced, and none is left."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)      # a spawned worker would import pytest else
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    supervisor = Supervisor()
    pool = Pool("m", "m", 2, 4, supervisor.wake)
    supervisor.supervise(pool)

    def until(idle: int, restarts: int) -> None:
        end = time.monotonic() + 30
        while (pool.snapshot().idle, pool.snapshot().restarts) != (idle, restarts):
            assert time.monotonic() < end
            supervisor.step(end)

    try:
        until(2, 0)
        victim = pool._idle[0]
        victim.kill()
        until(2, 1)
        assert victim not in pool._idle
        pool.resize(1, 4)
        until(1, 1)
    finally:
        supervisor.stop(time.monotonic() + 5)
    assert pool.snapshot().idle == 0 and not any(crew.children for crew in supervisor._crews)
    for number in (supervisor.wake_reader, supervisor.wake_fd):
        os.close(number)
