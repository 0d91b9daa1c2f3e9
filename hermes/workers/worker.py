"""A worker process: one job at a time from its pipe to Ollama and back.

    parent process            │ pipe │            worker process                         Ollama
                              │      │
    lease ── JOB, CANCEL ─────┼──────┼──▶ receive ──▶ Ollama.serve ──── HTTP request ────▶
          ◀─ HEAD DATA… END ──┼──────┼─── send  ◀──── Relay ◀──────── answer, read by read
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
from multiprocessing.connection import Connection

from hermes.workers.messages import Kind, frame, unpack_job, ProtocolError
from hermes.workers.ollama import Ollama
from hermes.workers.watch import ParentGone, Pipe, Watch


def main(connection: Connection) -> None:
    """The process's target. Returns when the parent has closed the pipe."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    pipe = Pipe(connection.fileno())
    ollama = Ollama(Watch(pipe), pipe.send)
    try:
        pipe.send(frame(Kind.READY))
        while True:
            kind, payload = pipe.receive()
            if kind == Kind.JOB:
                ollama.serve(unpack_job(payload))
            # A CANCEL that crossed the end of its job on the pipe finds nothing to cancel.
    except (ParentGone, ProtocolError):
        return
