"""A loaded model, and what waits for one. No decisions here: those are the scheduler's."""

import math
import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from hermes.simulator.client import Client
from hermes.simulator.models import SimModel, canonical


class Busy(Exception):
    """The pending queue is full."""


class NoMemory(Exception):
    """The model alone is larger than the memory."""


@dataclass(frozen=True)
class Capacity:
    """What the machine can hold."""

    parallel: int
    max_queue: int
    max_loaded: int
    memory: int | None
    keep_alive: float


@dataclass(frozen=True)
class Want:
    """What a request needs: a runner of this model, loaded with these options (ollama-api.md §0.11)."""

    name: str
    model: SimModel
    load_time: float
    context: int
    options: tuple[object, ...] = ()
    keep_alive: float | None = None

    @property
    def file(self) -> str:
        """The listed name of the model file, which a copy shares with its source."""
        return canonical(self.model.name)


@dataclass(eq=False)
class Runner:
    """A loaded model. Guarded by the ledger's condition."""

    want: Want
    """What it was loaded for."""
    keep_alive: float
    free: int
    expires: float = math.inf
    references: int = 0
    leaving: bool = False
    waiting: "deque[Ticket]" = field(default_factory=deque)

    @property
    def name(self) -> str:
        """The model's listed name."""
        return self.want.name

    @property
    def file(self) -> str:
        """What was loaded: two names of one file share its runner (ollama-api.md §3.1)."""
        return self.want.file

    @property
    def model(self) -> SimModel:
        """The model itself."""
        return self.want.model

    def serves(self, want: Want) -> bool:
        """Whether it will do as it is."""
        return (self.want.context, self.want.options) == (want.context, want.options)

    def set_keep_alive(self, seconds: float | None) -> None:
        """An explicit keep_alive sticks to the runner (ollama-api.md §3.4)."""
        if seconds is not None:
            self.keep_alive = seconds
            self.leaving = False


class Ticket:
    """A request that must wait: a pipe that other handler threads write a byte to, and its client."""

    def __init__(self, client: Client, want: Want) -> None:
        self.want = want
        self.client = client
        self.granted = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def wake(self) -> None:
        """Makes `wait` return. Called under the condition, so never after `close`."""
        with suppress(BlockingIOError):
            os.write(self._write, b"!")

    def wait(self) -> None:
        """Blocks this ticket's handler thread until it is woken; raises as soon as the client leaves."""
        self.client.wait_readable(self._read)
        os.read(self._read, 64)

    def close(self) -> None:
        """Lets go of the pipe."""
        os.close(self._read)
        os.close(self._write)
