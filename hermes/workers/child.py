"""The parent's handle on one worker process and its end of the pipe.

A pipe has exactly one owner at a time: the supervisor while the worker starts and after it has died idle, the pool while it is idle,
a lease while it works. Only the owner reads, writes or closes it; `close` is latched all the same, because closing a
descriptor twice would close somebody else's.
"""

import fcntl
import multiprocessing
import os
import select
import signal
import termios
import threading
import time
from array import array
from multiprocessing import resource_tracker

from hermes.workers import worker
from hermes.workers.messages import FrameReader, Job, Kind, frame, pack_job

READ = 64 * 1024            # from 128 KiB on each read would map and unmap its buffer
_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_context = multiprocessing.get_context("spawn")     # the parent is full of threads: a fork would copy their locks


class Child:
    """One worker. Created by the supervisor; `send_job`, `cancel` and `receive` are for the current owner of the pipe."""

    _reaping = threading.Lock()             # held where any worker may be waited for: behind that its number is anybody's

    def __init__(self, process, connection):
        self.process = process
        self.pid: int = process.pid
        self.started = time.monotonic()
        self.unwanted = False               # we ended it ourselves: not a death to count
        self._connection = connection
        self.fd: int = connection.fileno()
        self._reader = FrameReader()
        self._unsent = memoryview(b"")
        self._closed = False
        self._reaped = False
        os.set_blocking(self.fd, False)

    @classmethod
    def start(cls, name: str) -> "Child":
        """Main thread only. Signals are held back until the worker has said what it does with them, and the resource tracker must
        run before that, or its own launch would let them through (multiprocessing/resource_tracker.py)."""
        resource_tracker.ensure_running()
        ours, theirs = _context.Pipe(duplex=True)
        process = _context.Process(target=worker.main, args=(theirs,), name=name, daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            with cls._reaping:
                process.start()             # waits for all that have died (multiprocessing/process.py, _cleanup)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()                  # ours is the only copy left: end of file will mean that the worker is gone
        return cls(process, ours)

    @classmethod
    def end_all(cls) -> None:
        """Main thread only, when it has failed: at the exit multiprocessing sends each worker a SIGTERM, which none obeys, and then waits for it."""
        with cls._reaping:
            for process in multiprocessing.active_children():
                process.kill()

    def send_job(self, job: Job, deadline: float) -> None:
        """Hand over a job. Raises OSError when the worker is gone, TimeoutError when it does not take it until `deadline`."""
        for piece in pack_job(job):             # one piece, unless the body is large
            view = memoryview(piece)
            while view:
                try:
                    view = view[os.write(self.fd, view):]
                except BlockingIOError:
                    self._wait_writable(deadline)

    def _wait_writable(self, deadline: float) -> None:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("the worker does not take its job")

    def push(self, data: bytes) -> None:
        """Write what the pipe takes at once; the rest waits for `flush`, and nothing may be pushed behind it. Raises OSError."""
        self._unsent = memoryview(data)
        self.flush()

    def flush(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self.fd, self._unsent):]
        except BlockingIOError:
            pass

    @property
    def unsent(self) -> bool:
        """Is there a frame that has gone out in part only?"""
        return bool(self._unsent)

    def untaken(self) -> bool:
        """Is something on the pipe that the worker has not read? False where the system does not say."""
        count = array("i", [0])
        try:
            fcntl.ioctl(self.fd, termios.TIOCOUTQ, count)
        except OSError:
            return False
        return count[0] > 0

    def cancel(self) -> None:
        """Raises OSError when the worker is gone or its pipe is full."""
        if self._unsent:
            raise BlockingIOError
        os.write(self.fd, frame(Kind.CANCEL))

    def receive(self) -> list[tuple[int, bytes]]:
        """The frames that one read completes; to be called when the pipe is readable. Raises EOFError, OSError, ProtocolError."""
        try:
            data = os.read(self.fd, READ)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        return self._reader.feed(data)

    @property
    def sentinel(self) -> int:
        return self.process.sentinel

    def kill(self) -> None:
        """SIGKILL: the only thing a stopped process obeys. Any thread; never hits a process that has inherited the number."""
        with self._reaping:
            if not self._reaped and self.process.exitcode is None:
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Give the pipe up; the worker reads end of file and leaves."""
        if not self._closed:
            self._closed = True
            self._connection.close()

    def reap(self) -> int | None:
        """Main thread only: the exit code (negative = signal) of a worker whose sentinel has fired. Its sockets are closed now."""
        with self._reaping:
            self._reaped = True
            self.process.join()
        code = self.process.exitcode
        self.process.close()
        return code
