"""The only module that speaks to Ollama. Runs in a worker's one thread.

    Job ──▶ ask: connect, send, wait for the head (retried here and nowhere else, only while nothing has come)
         ◀── relay: HEAD, DATA…, then END if the answer is whole and said so, else FAILURE (hermes.workers.relay)

What few workers ever do, uploads and renaming, is imported when it is first asked for: each idle worker would pay for it.
"""

import random
import time
import urllib.request
from collections.abc import Callable
from functools import lru_cache, partial

from hermes.errors import UpstreamBroken, UpstreamError, UpstreamUnreachable
from hermes.workers.connection import KeptConnectionHandler, broken, build_opener
from hermes.workers.messages import Failure, Job, pack
from hermes.workers.relay import Relay
from hermes.workers.reply import Reply
from hermes.workers.watch import Cancelled, Watch

CONNECT_ATTEMPTS = 3        # with the pauses below a refused connection is reported within 200 ms
CONNECT_PAUSE = 0.03        # seconds, doubled each time, with jitter down to its half
JSON = (("Content-Type", "application/json"),)


class Ollama:
    """One conversation at a time, over one kept connection."""

    def __init__(self, watch: Watch, send: Callable[[bytes], None]):
        self._watch = watch
        self._send = send
        self._handler = KeptConnectionHandler(watch)
        self._opener = build_opener(self._handler)
        self._request = lru_cache(maxsize=64)(_request)     # the same client asks for the same path again and again

    def serve(self, job: Job) -> None:
        """Answer `job` with frames, the last of which is END or FAILURE. Raises only what `send` raises, and ParentGone."""
        self._watch.begin(job.timeouts.total, job.timeouts.run)
        try:
            if job.prelude:
                self._play(job)
            reply = self._ask(job)
            if 300 <= reply.status < 400:
                raise UpstreamBroken(f"Ollama answered with a redirect ({reply.status})")
            closing = _relay(job)(job, reply, self._watch, self._send).run()
            self._handler.keep(reply)
        except Cancelled:
            self._handler.drop()
            closing = pack(Failure("ClientGone", "cancelled"))
        except UpstreamError as error:
            self._handler.drop()
            closing = pack(Failure(type(error).__name__, error.text))
        except (OSError, EOFError, ValueError) as error:
            self._handler.drop()
            closing = pack(Failure("UpstreamBroken", broken(error).text))
        self._send(closing)

    def _play(self, job: Job) -> None:
        """The prelude. If Ollama refuses it, it will refuse the job as well, and say so; without a connection the job has failed."""
        prelude = Job(job.url, "POST", job.prelude.path, JSON, job.prelude.body.encode(), timeouts=job.timeouts)
        reply = self._ask(prelude)
        Relay(prelude, reply, self._watch, lambda _: None).run()
        self._handler.keep(reply)

    def _ask(self, job: Job) -> Reply:
        """The head of the answer. Two things are tried again: a connection that could not be made, and one that had gone stale."""
        data = None if job.method in ("GET", "HEAD") else job.body
        prepare = self._request
        if job.follows:
            from hermes.workers.upload import Upload
            data = Upload(self._watch, job.timeouts)
            prepare = partial(_request, data=data)
            self._handler.drop()                # the body comes once: nothing of it may be lost on a connection that has gone stale
        attempt = 0
        while True:
            request = prepare(job.url + job.path, job.method, job.headers)
            request.data = data
            self._watch.phase("cannot connect to Ollama: timed out", job.timeouts.connect)
            try:
                self._handler.connect(request)
                self._watch.phase("Ollama sent nothing within first_byte_timeout", job.timeouts.first_byte)
                return self._opener.open(request)
            except UpstreamUnreachable:
                attempt += 1
                if attempt == CONNECT_ATTEMPTS:
                    raise
                time.sleep(CONNECT_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
            except (EOFError, ConnectionResetError):
                stale = self._handler.used
                self._handler.drop()
                if not stale:
                    raise
            finally:
                request.data = None             # it may be large, and the request is kept


def _relay(job: Job) -> type[Relay]:
    if not job.rename:
        return Relay
    from hermes.workers.renaming import RenamingRelay
    return RenamingRelay


def _request(url: str, method: str, headers: tuple[tuple[str, str], ...], data=None) -> urllib.request.Request:
    """A Content-Length among `headers` stays only if it comes together with its `data`, an Upload."""
    return urllib.request.Request(url, data, dict(headers), method=method)

