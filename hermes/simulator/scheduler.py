"""Which model is loaded and whose turn it is (ollama-api.md §3.1, §3.4, §3.5).

    acquire ──loaded──────────────────────────▶ slots of the runner, first come first served ──▶ prefill
       └────not loaded──▶ pending, one at a time: make room, load ──┘

There is no scheduler thread. The request at the head of the pending queue does the scheduler's work in its own handler
thread; therefore it is also the one whose leaving aborts the load. Everything is decided under the ledger's condition;
waiting is done outside it, on the client's socket and on the ticket's own pipe.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

from hermes.simulator.client import Client
from hermes.simulator.runner import Busy, Capacity, NoMemory, Runner, Ticket, Want


class Scheduler:
    """The models in memory, their slots, and the queue of those who need a load."""

    def __init__(self, capacity: Capacity, changed: Condition) -> None:
        self.loads: Counter[str] = Counter()
        self.load_starts: Counter[str] = Counter()
        self._capacity = capacity
        self._changed = changed
        self._runners: dict[str, Runner] = {}
        self._pending: deque[Ticket] = deque()

    @contextmanager
    def lease(self, client: Client, want: Want, entered: Callable[[str], None]) -> Iterator[Runner]:
        """A slot of the wanted model for as long as the block runs. `entered` hears of "loading" and "prefill"."""
        runner = self._reference(client, want, entered)
        try:
            self._take_slot(client, want, runner)
            try:
                entered("prefill")
                yield runner
            finally:
                self._give_slot(runner)
        finally:
            self._dereference(runner)

    @contextmanager
    def hold(self, client: Client, want: Want, entered: Callable[[str], None]) -> Iterator[Runner]:
        """The wanted model loaded and kept for as long as the block runs, without a slot: a load request."""
        runner = self._reference(client, want, entered)
        try:
            yield runner
        finally:
            self._dereference(runner)

    def unload(self, file: str) -> None:
        """Unloads a model file when idle; what is running goes on (ollama-api.md §3.3)."""
        with self._changed:
            if runner := self._runners.get(file):
                runner.keep_alive = 0.0
                runner.leaving = True
                self._settle(runner)

    def runners(self) -> list[Runner]:
        """What is loaded now, the latest expiry first, as ps lists it."""
        with self._changed:
            self._expire()
            return sorted(self._runners.values(), key=lambda runner: -runner.expires)

    def pending(self) -> int:
        """How many requests wait for a load, the one that is loading included."""
        with self._changed:
            return len(self._pending)

    def _reference(self, client: Client, want: Want, entered: Callable[[str], None]) -> Runner:
        with self._changed:
            if runner := self._usable(want):
                return runner
            if len(self._pending) > self._capacity.max_queue:  # The head has left Ollama's channel already.
                raise Busy
            ticket = Ticket(client, want)
            self._pending.append(ticket)
            self._changed.notify_all()
        try:
            return self._wait_for_load(ticket, entered)
        finally:
            with self._changed:
                self._pending.remove(ticket)
                ticket.close()
                self._wake_head()
                self._changed.notify_all()

    def _wait_for_load(self, ticket: Ticket, entered: Callable[[str], None]) -> Runner:
        """In the handler thread of a pending request: wait to be the head, make room, load."""
        while True:
            with self._changed:
                head = self._pending[0] is ticket
                if head and (runner := self._usable(ticket.want)):
                    return runner
                room = head and self._make_room(ticket.want)
                if room:
                    self.load_starts[ticket.want.file] += 1
            if room:
                entered("loading")
                ticket.client.pause(ticket.want.load_time)
                return self._loaded(ticket.want)
            ticket.wait()

    def _usable(self, want: Want) -> Runner | None:
        """Under the condition: a reference to a runner that will do, if there is one."""
        self._expire()
        runner = self._runners.get(want.file)
        if runner is None or not runner.serves(want):
            return None
        runner.references += 1
        runner.set_keep_alive(want.keep_alive)
        return runner

    def _make_room(self, want: Want) -> bool:
        """Under the condition: evicts idle runners until the model fits; False while a busy one is in the way."""
        memory = self._capacity.memory
        if memory is not None and want.model.size > memory:
            raise NoMemory(f"{want.model.size} B of {memory} B")
        while victim := self._victim(want):
            victim.leaving = True
            if not self._settle(victim):
                return False
        return True

    def _victim(self, want: Want) -> Runner | None:
        """Who has to go first: an idle runner before a busy one, then the shortest keep-alive, then by name."""
        if same := self._runners.get(want.file):
            return same
        used = sum(runner.model.size for runner in self._runners.values())
        memory = self._capacity.memory
        fits = memory is None or used + want.model.size <= memory
        if fits and len(self._runners) < self._capacity.max_loaded:
            return None
        return min(self._runners.values(), key=lambda runner: (runner.references > 0, runner.keep_alive, runner.name))

    def _loaded(self, want: Want) -> Runner:
        capacity = self._capacity
        with self._changed:
            keep_alive = capacity.keep_alive if want.keep_alive is None else want.keep_alive
            free = 1 if want.model.embeds_only else capacity.parallel
            runner = Runner(want, keep_alive, free, references=1)
            self._runners[want.file] = runner
            self.loads[want.file] += 1
            self._changed.notify_all()
            return runner

    def _take_slot(self, client: Client, want: Want, runner: Runner) -> None:
        with self._changed:
            if runner.free:
                runner.free -= 1
                return
            ticket = Ticket(client, want)
            runner.waiting.append(ticket)
        try:
            ticket.wait()
        except BaseException:
            with self._changed:
                if ticket.granted:
                    self._give_slot(runner)
                else:
                    runner.waiting.remove(ticket)
            raise
        finally:
            with self._changed:
                ticket.close()

    def _give_slot(self, runner: Runner) -> None:
        with self._changed:
            if runner.waiting:
                ticket = runner.waiting.popleft()
                ticket.granted = True
                ticket.wake()
            else:
                runner.free += 1

    def _dereference(self, runner: Runner) -> None:
        with self._changed:
            runner.references -= 1
            runner.expires = time.monotonic() + runner.keep_alive
            self._settle(runner)

    def _settle(self, runner: Runner) -> bool:
        """Under the condition: an idle runner that has to go, goes. True if it is gone."""
        if runner.references:
            return False
        if runner.leaving or runner.keep_alive == 0:
            if self._runners.get(runner.file) is runner:
                del self._runners[runner.file]
            self._changed.notify_all()
        self._wake_head()
        return self._runners.get(runner.file) is not runner

    def _expire(self) -> None:
        """Under the condition: keep-alives that ran out. Nobody waits for them, so looking when asked is enough."""
        now = time.monotonic()
        for runner in [*self._runners.values()]:
            if runner.references == 0 and runner.expires <= now:
                del self._runners[runner.file]

    def _wake_head(self) -> None:
        if self._pending:
            self._pending[0].wake()
