"""Pulls in progress: callers who want the same model share one. Each pull has a thread of its own, because it outlives its first caller.

    running ──success──▶ loading ──loaded──▶ ready
       └── error, or the last caller has left ──▶ failed

A shared pull is cancelled when its last caller leaves; then Ollama stops the download and keeps what it has (ollama-api.md §5.1).
"""

import json
import logging
import select
import socket
import threading

from hermes.dispatch.bell import GONE, Bell
from hermes.dispatch.dispatcher import Dispatcher
from hermes.dispatch.faults import made
from hermes.errors import ClientGone, HermesBusy, HermesError, UpstreamBroken, UpstreamFailed
from hermes.names import canonical

log = logging.getLogger("hermes.pulls")


class Pull:
    """One pull. `events` are NDJSON lines without their end; a progress line replaces the one before it for the same step,
    so that an hour's pull stays small. All state is guarded by the lock of Pulls."""

    def __init__(self, key: str, name: str):
        self.key, self.name = key, name
        self.events: list[bytes] = []
        self.version = 0                    # counts changes of the last event
        self.step = ""                      # the step the last event belongs to
        self.finished = False
        self.error: HermesError | None = None
        self.bells: list[Bell] = []
        # The pull is its own client towards the dispatcher: closing `leave` is how it is told that nobody wants it.
        self.client, self.leave = socket.socketpair()


class Pulls:
    """`join` from any handler thread."""

    def __init__(self, dispatcher: Dispatcher):
        self._dispatcher = dispatcher
        self._lock = threading.Lock()
        self._running: dict[str, Pull] = {}

    def join(self, name: str, client) -> "Subscription":
        """Take part in the pull of `name`, starting it if nobody has. Raises BadRequest on a malformed name, CloudRefused.

        A name from the configuration stands for the model behind it, as everywhere else.
        """
        place = self._dispatcher.known(name)
        name = place.model if place else name
        key = canonical(name)
        bell = Bell()
        try:
            with self._lock:
                pull = self._running.get(key)
                new = pull is None
                if new:
                    pull = self._running[key] = Pull(key, name)
                pull.bells.append(bell)
        except OSError:                         # no descriptor is left
            bell.close()
            raise
        if new:
            self._start(pull)
        return Subscription(self, pull, bell, client)

    def _start(self, pull: Pull) -> None:
        try:
            threading.Thread(target=self._run, args=(pull,), name=f"pull {pull.name}", daemon=True).start()
        except (RuntimeError, MemoryError):
            self._end(pull, HermesBusy("no thread is left for this pull"))

    def look(self, pull: Pull, seen: int, version: int) -> tuple[list[bytes], int, int, bool]:
        """What is new to somebody who has seen `seen` events, the last in `version`: events, both numbers, and if it is over."""
        with self._lock:
            changed = seen == len(pull.events) and version != pull.version
            return pull.events[seen - 1 if changed else seen:], len(pull.events), pull.version, pull.finished

    def quit(self, pull: Pull, bell: Bell) -> None:
        """A caller leaves; with the last one the pull ends."""
        with self._lock:
            pull.bells.remove(bell)
            last = not pull.bells and not pull.finished
            if last:
                self._running.pop(pull.key, None)
                pull.leave.close()
        bell.close()

    # -- the pull's own thread -------------------------------------------------------------------------------------

    def _run(self, pull: Pull) -> None:
        error = None
        try:
            made(self._download, pull)
            self._dispatcher.derivatives.forget()
            made(self._load, pull)
        except HermesError as failure:
            error = failure
        except ClientGone:
            error = UpstreamBroken("the pull was cancelled")
        except Exception:                       # or its callers would wait for ever
            log.exception("a pull ended by an error of ours")
            error = HermesError("internal error")
        self._end(pull, error)

    def _end(self, pull: Pull, error: HermesError | None) -> None:
        with self._lock:
            pull.error, pull.finished = error, True
            if self._running.get(pull.key) is pull:
                del self._running[pull.key]
            for bell in pull.bells:
                bell.ring()
        pull.client.close()
        pull.leave.close()

    def _download(self, pull: Pull) -> None:
        dispatcher = self._dispatcher
        body = json.dumps({"model": pull.name}).encode()
        job = dispatcher.job("POST", "/api/pull", body=body, ending="success", decode=True, headers=(("Content-Type", "application/json"),))._replace(timeouts=dispatcher.upstream.timeouts.endless())
        rest = b""
        with dispatcher.open(dispatcher.registry.puller(), job, pull.client) as lease:
            while piece := lease.read():
                *lines, rest = (rest + piece).split(b"\n")
                for line in filter(None, lines):
                    self._tell(pull, line)
            if lease.head.status != 200:
                raise UpstreamFailed(_error_text(rest))

    def _load(self, pull: Pull) -> None:
        self._tell(pull, b'{"status":"loading model"}')
        place = self._dispatcher.place(pull.name, pull.client)
        body = json.dumps(place.loading()).encode()
        status, answer = self._dispatcher.ask("POST", "/api/generate", pull.client, body, place)
        if status != 200:
            raise UpstreamFailed(_error_text(answer))
        self._tell(pull, b'{"status":"ready"}')

    def _tell(self, pull: Pull, line: bytes) -> None:
        """A line of progress. Ollama's own error line becomes the pull's error when its stream has ended."""
        record = _record(line)
        if "error" in record:
            raise UpstreamFailed(_error_text(line))
        step = str(record.get("status"))
        with self._lock:
            if pull.events and step == pull.step:
                pull.events[-1] = line
            else:
                pull.events.append(line)
            pull.step = step
            pull.version += 1
            for bell in pull.bells:
                bell.ring()


class Subscription:
    """One caller's view of a pull. Runs in his handler thread. For who looks on it is a call that is with no model and in no queue."""

    queued, model = False, ""

    def __init__(self, pulls: Pulls, pull: Pull, bell: Bell, client):
        self._pulls, self._pull, self._bell, self._client = pulls, pull, bell, client
        self._seen = self._version = 0
        self._poll = select.poll()
        self._poll.register(bell, select.POLLIN)
        self._poll.register(client, GONE)
        self._open = True

    def events(self) -> list[bytes]:
        """The lines since the last call, waiting for one if need be; [] = it has succeeded. Raises HermesError, ClientGone."""
        while True:
            new, self._seen, self._version, finished = self._pulls.look(self._pull, self._seen, self._version)
            if new:
                return new
            if finished:
                if self._pull.error:
                    raise self._pull.error.with_traceback(None)
                return []
            ready = dict(self._poll.poll())
            if self._client.fileno() in ready:
                raise ClientGone
            self._bell.clear()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._pulls.quit(self._pull, self._bell)


def _record(line: bytes) -> dict:
    try:
        record = json.loads(line)
    except ValueError:
        raise UpstreamBroken("Ollama's progress is not JSON") from None
    return record if isinstance(record, dict) else {}


def _error_text(body: bytes) -> str:
    try:
        return str(_record(body).get("error", "the pull failed"))
    except UpstreamBroken:
        return "the pull failed"
