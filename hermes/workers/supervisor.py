"""The supervisor keeps every pool full. It runs in the parent's main thread and is never on a request's path.

    Application ── supervise(pool) ──▶ ┌───────── one crew per pool ─────────┐
                                       │ start ─▶ starting ─READY─▶ staffed  │──offer──▶ pool ──lease──▶ handler threads
    wake pipe, sentinels, boot pipes ─▶│   ▲                        │ death  │◀─surplus─
              one wait for all         │   └── pause (RestartPolicy)┘        │──discard─▶
                                       └─────────────────────────────────────┘

A pool says how many workers it wants (`size`); the supervisor starts what is missing, all at once, waits for each one's READY on its
pipe, and offers it to the pool. From then on the pipe is the pool's, or the lease's; the supervisor only watches the
process's sentinel.

A death is learnt from the sentinel. The process is reaped first, so that its connection to Ollama is closed before anybody takes its
place: that is what keeps the number of calls at Ollama within the pool's size. Then the restart policy decides: at once, after a
pause, or not until the pool has rested.

The supervisor knows pools by what they offer (class Staffed); it imports nothing above it.
"""

import logging
import os
import signal
import threading
import time
from multiprocessing import connection
from typing import Protocol

from hermes.workers.child import Child
from hermes.workers.messages import Kind, ProtocolError
from hermes.workers.restart import PERIOD, PROBE, RestartPolicy

LEAVE = 5.0                 # seconds for a worker to leave when its pipe is closed; a stopped one never does
BOOT_TIMEOUT = 15.0         # seconds for a worker to say READY; a cold disk needs some
log = logging.getLogger("hermes.supervisor")


class Staffed(Protocol):
    """What the supervisor needs of a pool. Each method takes the pool's own lock; none calls back."""

    name: str
    size: int
    answered: int

    def offer(self, child: Child) -> None: ...
    def discard(self, child: Child) -> bool: ...
    def dismiss(self, child: Child) -> bool: ...
    def surplus(self) -> list[Child]: ...
    def ended(self) -> bool: ...
    def close(self, reason: str, reopens: float) -> None: ...
    def reopen(self) -> None: ...


class Crew:
    """The workers of one pool, as the supervisor sees them. Main thread only."""

    def __init__(self, pool: Staffed):
        self.pool = pool
        self.policy = RestartPolicy()
        self.children: set[Child] = set()
        self.starting: set[Child] = set()           # until READY
        self.leaving: dict[Child, float] = {}       # who was asked to leave, until when
        self.not_before = 0.0
        self.resting_until: float | None = None

    def missing(self) -> int:
        wanted = self.pool.size if self.resting_until is None else min(1, self.pool.size)
        return wanted - len(self.children)

    def well(self) -> bool:
        """Does somebody stand who was not asked to leave?"""
        return bool(self.children - self.starting - self.leaving.keys())

    def next_time(self) -> float | None:
        """When something is due without anybody's asking; None = nothing is."""
        times = [child.started + BOOT_TIMEOUT for child in self.starting] + list(self.leaving.values())
        if self.missing() > 0 or self.resting_until is not None and self.well():
            times.append(max(self.not_before, self.resting_until or 0.0))
        return min(times, default=None)


class Supervisor:
    """`step` once per turn of the main loop; `supervise` and `wake` from any thread."""

    def __init__(self) -> None:
        self._crews: list[Crew] = []
        self._new: list[Staffed] = []
        self._lock = threading.Lock()               # guards _new, nothing else
        self.wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self.wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self.stopping = False                       # nobody is started any more
        self._stood = False                         # has any worker ever said READY?
        self._reaper = os.getpid() == 1

    @property
    def wake_fd(self) -> int:
        """For signal.set_wakeup_fd: everything that can wake the loop is a byte on one pipe."""
        return self._wake_writer

    def supervise(self, pool: Staffed) -> None:
        """From now on keep `pool` full; until its size is 0 and its last worker has left."""
        with self._lock:
            self._new.append(pool)
        self.wake()

    def wake(self) -> None:
        try:
            os.write(self._wake_writer, b"w")
        except BlockingIOError:
            pass                                    # it is full of wake-ups already

    def starting(self) -> dict[str, int]:
        """Pool name → workers that are on their way. Any thread: a picture, not a promise."""
        return {crew.pool.name: len(crew.starting) for crew in tuple(self._crews)}

    @property
    def hopeless(self) -> bool:
        """Has every pool been given up before a single worker stood? Then it is not their crashing but this machine."""
        return not self._stood and bool(self._crews) and all(crew.resting_until is not None for crew in self._crews)

    def step(self, until: float) -> None:
        """Start what is due, then wait for whatever happens first, at most until the monotonic time `until`."""
        self._welcome()
        now = time.monotonic()
        for crew in self._crews:
            self._retire(crew, now)
            self._start_due(crew, now)
        times = [time_ for crew in self._crews if not self.stopping and (time_ := crew.next_time()) is not None]
        sentinels = {child.sentinel: (crew, child) for crew in self._crews for child in crew.children}
        booting = {child.fd: (crew, child) for crew in self._crews for child in crew.starting}
        timeout = max(0.0, min([until, *times]) - time.monotonic())
        for ready in connection.wait([self.wake_reader, *sentinels, *booting], None if timeout == float("inf") else timeout):
            if ready == self.wake_reader:
                self._drain_wake()
            elif ready in booting:
                self._boot(*booting[ready])
            else:
                self._died(*sentinels[ready])
        if self._reaper:
            _reap_strangers({child.pid for crew in self._crews for child in crew.children})

    def _welcome(self) -> None:
        with self._lock:
            new, self._new = self._new, []
        self._crews += [Crew(pool) for pool in new]
        self._crews = [crew for crew in self._crews if crew.children or not crew.pool.ended()]

    def _drain_wake(self) -> None:
        try:
            while os.read(self.wake_reader, 4096):
                pass
        except BlockingIOError:
            pass

    def _retire(self, crew: Crew, now: float) -> None:
        for child in crew.pool.surplus():
            child.unwanted = True
            child.close()
            if child in crew.children:
                crew.leaving[child] = now + LEAVE
        for child in [child for child, late in crew.leaving.items() if now >= late]:
            del crew.leaving[child]
            child.kill()

    def _start_due(self, crew: Crew, now: float) -> None:
        for child in [child for child in crew.starting if now >= child.started + BOOT_TIMEOUT]:
            log.error("worker did not start in %g s pool=%s pid=%d", BOOT_TIMEOUT, crew.pool.name, child.pid)
            self._abandon(crew, child)
        if crew.resting_until is not None and now >= crew.resting_until and crew.well():
            crew.policy.forgive(now)                # somebody of the pool is well and idle: that is probe enough
            self._reopen(crew)
        if self.stopping or crew.missing() <= 0 or now < max(crew.not_before, crew.resting_until or 0.0):
            return
        if crew.resting_until is not None:
            crew.policy.forgive(now)
        for _ in range(crew.missing()):
            try:
                child = Child.start(f"hermes-worker {crew.pool.name}")
            except OSError as error:
                log.error("cannot start a worker pool=%s error=%s", crew.pool.name, error)
                self._count_death(crew, float("inf"))   # no generation of workers: always an event of its own
                return
            crew.children.add(child)
            crew.starting.add(child)

    def _boot(self, crew: Crew, child: Child) -> None:
        """Something has come from a worker that is starting: READY, or its end."""
        if child not in crew.starting:
            return                                  # its death was handled in this very turn
        try:
            ready = any(kind == Kind.READY for kind, _ in child.receive())
        except (EOFError, OSError, ProtocolError):
            self._abandon(crew, child)
            return
        if ready:
            crew.starting.remove(child)
            self._stood = True
            if crew.resting_until is not None:
                self._reopen(crew)
            crew.pool.offer(child)

    def _reopen(self, crew: Crew) -> None:
        crew.resting_until = None
        log.warning("pool is tried again pool=%s", crew.pool.name)
        crew.pool.reopen()

    def _abandon(self, crew: Crew, child: Child) -> None:
        """A starting worker that will not do: from here on its sentinel alone is watched, and tells the rest."""
        child.kill()
        child.close()
        crew.starting.discard(child)

    def _died(self, crew: Crew, child: Child) -> None:
        code = child.reap()
        crew.children.discard(child)
        if child in crew.starting or crew.pool.discard(child):
            child.close()                           # else a lease owns the pipe and learns of the death from it
        crew.starting.discard(child)
        crew.leaving.pop(child, None)
        if child.unwanted or self.stopping:
            log.debug("worker left pool=%s pid=%d", crew.pool.name, child.pid)
            return
        if name := _signal(code):
            log.warning("worker died pool=%s pid=%d signal=%s", crew.pool.name, child.pid, name)
        else:
            log.warning("worker died pool=%s pid=%d code=%d", crew.pool.name, child.pid, code)
        self._count_death(crew, child.started)

    def _count_death(self, crew: Crew, started: float) -> None:
        now = time.monotonic()
        crew.policy.died(now, started, crew.pool.answered)
        crew.not_before = now + crew.policy.pause()
        if crew.policy.exhausted:
            crew.resting_until = now + PROBE
            reason = f"its workers died again and again within {PERIOD:g} s"
            log.error("pool is given up for %g s pool=%s reason=%s", PROBE, crew.pool.name, reason)
            crew.pool.close(reason, crew.resting_until)

    def stop(self, deadline: float) -> None:
        """End every worker: the idle ones by closing their pipes, the others by SIGKILL; returns when all are reaped."""
        self.stopping = True
        for crew in self._crews:
            for child in crew.children:
                child.unwanted = True
                if child in crew.starting or crew.pool.dismiss(child):
                    child.close()
                    crew.starting.discard(child)    # its descriptor may be somebody else's by now
                else:
                    child.kill()
        while any(crew.children for crew in self._crews) and time.monotonic() < deadline:
            self.step(deadline)
        for crew in self._crews:
            for child in crew.children:
                child.kill()
        while any(crew.children for crew in self._crews):
            self.step(time.monotonic() + 1.0)


def _signal(code: int) -> str | None:
    """Which signal ended a process, by its exit code as multiprocessing has it; None where it was none, or a nameless one."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return None


def _reap_strangers(ours: set[int]) -> None:
    """As PID 1 Hermes inherits orphans: look without reaping (WNOWAIT), and reap only what is nobody's."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in ours or found.si_pid == 0:
            return
        os.waitpid(found.si_pid, os.WNOHANG)
