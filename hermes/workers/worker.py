"""A worker process: one job at a time from its pipe to Ollama and back.

    parent process            │ pipe │            worker process                         Ollama
                              │      │
    lease ── JOB, CANCEL ─────┼──────┼──▶ receive ──▶ Ollama.serve ──── HTTP request ────▶
     feed ── BODY… BODY_END ──┼──────┼──▶ heed ─────▶ Upload ────── body, piece by piece ─▶
          ◀─ MORE HEAD DATA… ─┼──────┼─── send  ◀──── Relay ◀──────── answer, read by read
                              │      │

One thread does everything, and it waits in one place (hermes.workers.watch). While idle it reads the pipe; during a job it watches the
pipe and Ollama's socket together. So a Cancel is heard while a model loads, and so is the death of the parent.

A worker obeys its pipe and nothing else. It ignores SIGINT and SIGTERM, which a terminal or a service manager sends to the whole
process group: the parent decides who finishes what. End of file on the pipe means that the parent is gone, and the worker
leaves at once, wherever it is. The parent's only weapon is SIGKILL.

What Ollama does wrong becomes a FAILURE frame; what the pipe does wrong ends the process. The two are never caught in one place.
This module and what it imports is all that a worker loads: it decides how much memory an idle worker takes.
"""

import signal
import sys
from multiprocessing.connection import Connection

from hermes.workers.messages import Kind, ProtocolError, frame, unpack_job
from hermes.workers.watch import ParentGone, Pipe, Watch

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(connection: Connection) -> None:
    """The process's target. Returns when the parent has closed the pipe."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    pipe = Pipe(connection.fileno())
    ollama = _lean_ollama()(Watch(pipe), pipe.send)
    try:
        pipe.send(frame(Kind.READY))
        while True:
            kind, payload = pipe.receive()
            if kind == Kind.JOB:
                ollama.serve(unpack_job(payload))
            del payload             # it may be large, and the next may be long in coming
            # A CANCEL that crossed the end of its job on the pipe finds nothing to cancel, and a BODY nobody to send it to.
    except (ParentGone, ProtocolError):
        return


def _lean_ollama() -> type:
    """The class Ollama, imported here and not above: the parent, which names this module, needs none of it, and a worker should not pay
    3 MB for ssl, which urllib.request loads where it can. Hidden from it, it is there when a connection asks for TLS."""
    hidden = "ssl" not in sys.modules
    if hidden:
        sys.modules["ssl"] = None
    from hermes.workers.ollama import Ollama
    if hidden:
        del sys.modules["ssl"]
    return Ollama
