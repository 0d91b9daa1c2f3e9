"""What is done to Hermes from outside, and to Ollama: workers die and stop, Ollama goes and comes, the configuration changes.

Runs in the storm's one thread. Only Hermes's own workers are ever hit: each through a descriptor of its process, looked up while it is a
child of Hermes.
"""

import os
import signal
import time
from contextlib import suppress

from hermes.simulator import Simulator
from tests.chaos.house import CALM, Caps, config, spoil
from tests.chaos.plan import NAMES, Continue, Kill, Outage, Reload, Stop
from tests.harness import SLOW, Hermes, eventually

HEEDED = 5.0 * SLOW         # seconds until a SIGHUP has been answered in the log


class Faults:
    def __init__(self, hermes: Hermes, ollama: Simulator):
        self._hermes, self._ollama = hermes, ollama
        self._stopped: dict[int, int] = {}      # step number → descriptor of the process
        self._down = False
        self._caps = Caps()
        self._caps.change(time.monotonic(), CALM.sizes)
        self._since = time.monotonic()

    def do(self, step: Kill | Stop | Continue | Outage | Reload) -> list[str]:
        """Complaints, if there are any already."""
        if isinstance(step, Kill):
            self._hit(step.pick, signal.SIGKILL)
        elif isinstance(step, Stop):
            self._stopped[step.number] = self._hit(step.pick, signal.SIGSTOP, keep=True)
        elif isinstance(step, Continue):
            self._continue(step.of)
        elif isinstance(step, Outage):
            self._outage(step.down)
        else:
            return self._reload(step)
        return []

    def end(self) -> list[str]:
        """Everything is as it was at the start."""
        for number in list(self._stopped):
            self._continue(number)
        self._outage(False)
        return self._reload(CALM)

    def judge_caps(self) -> list[str]:
        """The high water since the last time it was looked at."""
        found = self._caps.judge(self._since, {model: self._ollama.high_water(model) for model in NAMES.values()})
        self._since = time.monotonic()
        self._ollama.reset_high_water()
        return found

    def _hit(self, pick: float, number: int, keep: bool = False) -> int:
        """The descriptor, if it is to be kept; -1 if there was nobody to hit."""
        workers = sorted(self._hermes.children())
        if not workers:
            return -1
        pid = workers[int(pick * len(workers))]
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return -1
        with suppress(ProcessLookupError):
            if pid in self._hermes.children():
                signal.pidfd_send_signal(descriptor, number)
        if not keep:
            os.close(descriptor)
        return descriptor if keep else -1

    def _continue(self, of: int) -> None:
        descriptor = self._stopped.pop(of, -1)
        if descriptor != -1:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)
            os.close(descriptor)

    def _outage(self, down: bool) -> None:
        if down and not self._down:
            self._ollama.stop()
        elif self._down and not down:
            eventually(self._listens, what="the stand-in's port")
        self._down = down

    def _listens(self) -> bool:
        """Where nobody listens, a worker that tries to connect can come upon itself, and has the port for a moment."""
        try:
            self._ollama.start()
        except OSError:
            return False
        return True

    def _reload(self, step: Reload) -> list[str]:
        found = self.judge_caps()
        text = spoil(config(step), step.broken) if step.broken else config(step)
        if text is None:
            self._hermes.config.unlink(missing_ok=True)
        else:
            self._hermes.write_config(text)
        before = len(self._hermes.lines)
        if not step.broken:
            self._caps.change(time.monotonic(), step.sizes)
        self._hermes.signal(signal.SIGHUP)
        word = "configuration not reloaded" if step.broken else "configuration reloaded"
        try:
            line = eventually(lambda: next((line for line in self._hermes.lines[before:] if " configuration " in line), None), HEEDED)
        except AssertionError:
            return [*found, f"SIGHUP was not heeded within {HEEDED:g} s"]
        return found if word in line else [*found, f"a {step.broken or 'good'} file, and the log says: {line}"]
