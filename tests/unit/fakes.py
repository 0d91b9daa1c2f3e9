"""Workers without processes: a Child whose far end the test holds. Nothing here needs a clock."""

import os
import socket

from hermes.dispatch.shares import Claim
from hermes.workers.child import Child
from hermes.workers.messages import FrameReader, Kind


class FakeProcess:
    """As much of multiprocessing.Process as Child touches; its sentinel is a pipe that becomes readable when it dies."""

    pid = 1 << 30

    def __init__(self) -> None:
        self.sentinel, self._life = os.pipe()
        self.exitcode: int | None = None

    def die(self, code: int = -9) -> None:
        if self.exitcode is None:
            self.exitcode = code
            os.close(self._life)

    def join(self) -> None:
        assert self.exitcode is not None, "reaped while it lives"

    def close(self) -> None:
        if self.sentinel >= 0:
            os.close(self.sentinel)
            self.sentinel = -1


class FakeChild(Child):
    """A real Child over a socketpair. `stopped`: end of file does not end it, as after SIGSTOP; `immortal`: SIGKILL does not either."""

    def __init__(self, started: float | None = None, stopped: bool = False, immortal: bool = False):
        ours, self.far = socket.socketpair()
        self.far.settimeout(10)
        self.stopped, self.immortal = stopped, immortal
        self.killed = 0
        self.read_after_close = 0
        super().__init__(FakeProcess(), ours)
        if started is not None:
            self.started = started
        self._far_reader = FrameReader((1 << 32) - 1)
        self._heard: list[tuple[int, bytes]] = []

    def say(self, *frames: bytes) -> None:
        self.far.sendall(b"".join(frames))

    def hear(self) -> tuple[Kind, bytes]:
        """The next frame that the parent sent."""
        while not self._heard:
            data = self.far.recv(1 << 16)
            assert data, "the parent has closed the pipe"
            self._heard += self._far_reader.feed(data)
        kind, payload = self._heard.pop(0)
        return Kind(kind), payload

    def quiet(self) -> bool:
        """Has everything that the parent sent been heard?"""
        self.far.setblocking(False)
        try:
            return not self._heard and self.far.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return True
        finally:
            self.far.settimeout(10)

    def die(self, code: int = -9) -> None:
        self.process.die(code)
        self.far.close()

    def receive(self) -> list[tuple[int, bytes]]:
        self.read_after_close += self._closed
        return super().receive()

    def kill(self) -> None:
        self.killed += 1
        if not self.immortal:
            self.die()

    def close(self) -> None:
        super().close()
        if not self.stopped and not self.immortal:
            self.die(0)

    @property
    def closed(self) -> bool:
        return self._closed

    def bury(self) -> None:
        """The end of the test."""
        self.close()
        self.die()
        self.process.close()


def hire(pool, client, patience: float):
    """A worker, now or within `patience` seconds."""
    return pool.wait(pool.enter(Claim(), patience), client)
