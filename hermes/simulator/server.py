"""The stand-in's front: the listening socket, and the object that tests hold.

Threads: one accepts; one a connection reads its requests and answers them, and is the only one to write to it. Whoever
calls `Simulator`'s methods only reads what these wrote down, under the ledger's condition.
"""

import socketserver
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from hermes.simulator.client import Client
from hermes.simulator.conversation import Conversation
from hermes.simulator.exchange import House
from hermes.simulator.faults import Fault, Pace, Script
from hermes.simulator.ledger import Ledger, SimRequest
from hermes.simulator.models import Library, SimModel, canonical, default_models
from hermes.simulator.runner import Capacity
from hermes.simulator.scheduler import Scheduler

_STOP_NOTICE = 0.02  # How often the accepting thread looks whether it has to stop.


class _Listener(socketserver.ThreadingTCPServer):
    """Accepts connections; never prints, never waits for its threads. What it hands on is a Client, not a socket."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], ledger: Ledger, serve: Callable[[Client], None]) -> None:
        self._ledger = ledger
        self._serve = serve
        super().__init__(address, socketserver.BaseRequestHandler)

    def get_request(self) -> tuple[Any, Any]:
        """In the accepting thread, so that whoever stops it afterwards knows of every connection."""
        sock, address = super().get_request()
        client = Client(sock)
        self._ledger.connected(client)
        return client, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the new thread of the connection."""
        self._serve(request)

    def shutdown_request(self, request: Any) -> None:
        """Nothing: the conversation has closed its socket itself, in the way it wanted."""


class Simulator:
    """A stand-in Ollama on a port of its own. Also a context manager."""

    def __init__(
        self,
        models: Sequence[SimModel] | None = None,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        load_time: float = 0.0,
        prompt_time: float = 0.0,
        token_interval: float = 0.0,
        tokens: int = 16,
        parallel: int = 1,
        max_queue: int = 512,
        max_loaded: int = 3,
        memory: int | None = None,
        keep_alive: float = 300.0,
        pull_steps: int = 8,
        pull_interval: float = 0.0,
        keep_bodies: bool = False,
        remember: int | None = None,
    ) -> None:
        self._address = (host, port)
        self._ledger = Ledger(keep_bodies, remember)
        self._script = Script()
        self._pace = Pace(None, token_interval, prompt_time)
        capacity = Capacity(parallel, max_queue, max_loaded, memory, keep_alive)
        self._scheduler = Scheduler(capacity, self._ledger.changed)
        self._shelf = Library(default_models() if models is None else tuple(models))
        self._house = House(self._ledger, self._shelf, self._scheduler, tokens, load_time, pull_steps, pull_interval)
        self._listener: _Listener | None = None

    def start(self) -> None:
        """Listens, and serves in daemon threads."""
        self._listener = _Listener(self._address, self._ledger, self._converse)
        self._address = (self._address[0], self._listener.server_address[1])
        accept = self._listener.serve_forever
        threading.Thread(target=accept, args=(_STOP_NOTICE,), name="simulator", daemon=True).start()

    def stop(self) -> None:
        """Stops listening, ends every conversation and forgets what is loaded, as a killed Ollama does.

        It may start again, on the same port; the records go on.
        """
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.shutdown()
        listener.server_close()
        with self._ledger.changed:
            clients = list(self._ledger.open)
        for client in clients:
            client.shut_down()
        self.wait_for(lambda: not self._ledger.open)
        for runner in self._scheduler.runners():
            self._scheduler.unload(runner.file)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _converse(self, client: Client) -> None:
        """The whole life of a connection, in its handler thread."""
        try:
            Conversation(client, self._house, self._script, self._pace).run()
        finally:
            self._ledger.disconnected(client)
            client.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._address[1]

    @property
    def url(self) -> str:
        """Where it listens, as a URL without a slash at the end."""
        return f"http://{self._address[0]}:{self.port}"

    @property
    def requests(self) -> list[SimRequest]:
        """Every request so far, or the last `remember` of them, in order of arrival."""
        with self._ledger.changed:
            return list(self._ledger.requests)

    @property
    def connections(self) -> int:
        """TCP connections accepted so far."""
        return self._ledger.connections

    @property
    def open_connections(self) -> int:
        """TCP connections open now."""
        return len(self._ledger.open)

    @property
    def loads(self) -> dict[str, int]:
        """How often each model was loaded to the end."""
        with self._ledger.changed:
            return dict(self._scheduler.loads)

    @property
    def load_starts(self) -> dict[str, int]:
        """How often a load of each model was begun, aborted ones included."""
        with self._ledger.changed:
            return dict(self._scheduler.load_starts)

    @property
    def pending(self) -> int:
        """Requests that wait for a load, the one that is loading included."""
        return self._scheduler.pending()

    def running(self, model: str) -> int:
        """Inference calls of a model that are here now, waiting ones included."""
        return self._ledger.running(canonical(model))

    def high_water(self, model: str) -> int:
        """The most inference calls of a model that were here at once."""
        with self._ledger.changed:
            return self._ledger.high_water[canonical(model)]

    def reset_high_water(self) -> None:
        """Starts the high water from what is here now."""
        self._ledger.reset_high_water()

    def loaded(self) -> list[str]:
        """The names of the loaded models, as ps lists them."""
        return [runner.name for runner in self._scheduler.runners()]

    def script(
        self,
        fault: Fault,
        *,
        path: str | None = None,
        prompt: str | None = None,
        model: str | None = None,
        times: int | None = 1,
    ) -> None:
        """The next `times` requests that match get this fault; for ever if times is None."""
        self._script.add(fault, path, prompt, None if model is None else canonical(model), times)

    def install(self, name: str) -> None:
        """Makes a model installed, as a pull would."""
        with self._ledger.changed:
            self._shelf.install(canonical(name))

    def remove(self, name: str) -> None:
        """Makes a model not installed; a runner of it lives on."""
        with self._ledger.changed:
            self._shelf.remove(canonical(name))

    def wait_for(self, predicate: Callable[[], object], timeout: float = 5.0) -> bool:
        """Waits until the predicate holds, which is asked again at every change of state. False if it took too long."""
        return self._ledger.wait_for(predicate, timeout)
