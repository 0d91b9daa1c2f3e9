"""The only composer: builds the tree, owns the life state, the signals and the present configuration.

    SERVING ──TERM, INT──▶ DRAINING ──all quiet, or late, or a second signal──▶ STOPPED
       └─HUP─▶ SERVING, with the new configuration or, if that is bad, the old one

Everything here runs in the parent's main thread, in one loop: the supervisor's step, then whatever signals have come. A signal handler only
notes a number; the wake-up is a byte on the supervisor's pipe. Draining is a state with a deadline, turned by the same loop.
"""

import logging
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial

from hermes import __version__, config
from hermes.config import Config, ConfigError
from hermes.dispatch.dispatcher import Dispatcher, Upstream
from hermes.dispatch.pulls import Pulls
from hermes.dispatch.registry import Registry
from hermes.errors import Draining
from hermes.frontend import anthropic, health, manage, native, openai, own, pull
from hermes.frontend.crowd import Parking
from hermes.frontend.exchange import Call
from hermes.frontend.house import House, Limits
from hermes.frontend.listeners import Listeners
from hermes.frontend.live import Live
from hermes.frontend.principal import NOBODY
from hermes.frontend.queueing import Queueing, sees
from hermes.frontend.router import Router
from hermes.frontend.usage import UsagePage, spent
from hermes.observe import logs, status
from hermes.observe.notifier import RETRY, Notifier
from hermes.observe.usage import Reserve, Usage, UsageUnusable
from hermes.observe.watchdog import SelfRequest, Watchdog
from hermes.workers.child import Child
from hermes.workers.messages import Timeouts
from hermes.workers.supervisor import Supervisor

log = logging.getLogger("hermes")
access = logging.getLogger("hermes.access")
LAST_WORDS = 0.5            # seconds for handler threads to tell their clients, after the drain has been cut short
BRIEF = Timeouts(connect=1.0, first_byte=2.0, idle=1.0, total=3.0)
TICK = 0.1                  # seconds between two looks while draining; no clock runs otherwise


class Life(Enum):
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


STEPS = {Life.SERVING: (Life.DRAINING,), Life.DRAINING: (Life.STOPPED,), Life.STOPPED: ()}


class Application:
    """`run` blocks until a signal has ended everything. `read_config` is asked for the new configuration on SIGHUP."""

    def __init__(self, settings: Config, read_config: Callable[[], Config], notifier: Notifier | None = None):
        """Without a notifier no service manager is told anything. Raises OSError when the address cannot be listened on, UsageUnusable."""
        self.config = settings
        self.life = Life.SERVING
        self._read_config = read_config
        self._started = time.monotonic()
        self._signals: deque[int] = deque()
        self._drain_until = float("inf")
        self._stands = False                    # has there been a worker for a model?
        self.notifier = notifier or Notifier({})
        self.supervisor = Supervisor()
        self.registry = Registry(settings, self.supervisor.supervise, self.supervisor.wake)
        self.dispatcher = Dispatcher(self.registry, _upstream(settings))
        self.counters = status.Counters()
        self._keeper = _open_keeper(settings.server.state_dir)
        self.usage = self._keeper.usage if self._keeper else Usage()
        self._reserve = Reserve(self.usage)
        self.live = Live()
        self._parking = Parking()
        self.listeners = Listeners(settings, self._router(), self._house)
        self.server = self.listeners.front
        self.watchdog = Watchdog(self.notifier.interval, SelfRequest(self.server), self.supervisor.wake)

    def _house(self, router: Router, admit: Callable[[Call], None]) -> House:
        return House(router, Limits(self.config.server), partial(self._admit, admit), self._note, lambda: not self.serving(),
                     charge=self._charge, live=self.live, parking=self._parking)

    def _router(self) -> Router:
        views = health.Health(self)
        # What has a word behind the model's name stands before what has none: the first that fits wins.
        endpoints = [pull.PullEndpoint(self.dispatcher, Pulls(self.dispatcher)), Queueing(self.dispatcher, self.live), own.Own(self.dispatcher),
                     views, UsagePage(self, self._whose),
                     native.Native(self.dispatcher), openai.OpenAI(self.dispatcher), anthropic.Anthropic(self.dispatcher),
                     manage.Manage(self.dispatcher)]
        routes = [route for endpoint in endpoints for route in endpoint.routes()]
        families = [*((path, own.DIALECT) for path in ("/v1/llm/", "/v1/status", "/v1/usage", "/v1/requests/")), (anthropic.PATH, anthropic.DIALECT),
                    ("/v1/", openai.DIALECT), ("/api/", native.DIALECT), ("", native.DIALECT)]
        return Router(routes, families)

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Returns whether Hermes has been able to work at all."""
        try:
            return self._run()
        except BaseException:
            Child.end_all()                     # else the process would live on, and answer, with nobody to look after it
            raise

    def _run(self) -> bool:
        self._listen_to_signals()
        _raise_descriptor_limit()
        if self._keeper:
            self._keeper.start()
        self.listeners.start()
        admin = {"admin": self.listeners.admin.url} if self.listeners.admin else {}
        logs.announce(self.server.url, {**admin, "upstream": self.config.ollama.url, "config": self.config.path or "built-in",
                                        "models": len(self.config.models), "version": __version__, "pid": os.getpid()})
        while self.life is not Life.STOPPED:
            self.supervisor.step(self._next_look())
            while self._signals:
                self._heed(self._signals.popleft())
            if self.life is Life.SERVING and self.supervisor.hopeless:
                log.error("no worker process stands; ending")
                self._drain(0.0)
            if self.life is Life.DRAINING and (self._quiet() or time.monotonic() >= self._drain_until):
                self._become(Life.STOPPED)
            self._report()
        able = not self.supervisor.hopeless
        self._stop()
        return able

    def _next_look(self) -> float:
        if self.life is Life.DRAINING:
            return time.monotonic() + TICK
        now = time.monotonic()
        return min(self.registry.sweep(now), self.watchdog.due, now + RETRY if self.notifier.unsaid else float("inf"))

    def _listen_to_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._signals.append(number))
        # As PID 1 an orphan's death must wake the loop, to be reaped. And if whoever has started Hermes ignores the signal, so would Hermes: then the
        # kernel buries the dead by itself, nobody learns how they died, and their numbers may be anybody's before the supervisor has heard of it.
        signal.signal(signal.SIGCHLD, (lambda *_: None) if os.getpid() == 1 else signal.SIG_DFL)
        signal.set_wakeup_fd(self.supervisor.wake_fd, warn_on_full_buffer=False)

    def _heed(self, number: int) -> None:
        if number == signal.SIGHUP:
            if self.life is Life.SERVING:
                self._reload_as_told()
        elif self.life is Life.SERVING:
            log.info("stopping signal=%s drain_timeout=%g", signal.Signals(number).name, self.config.server.drain_timeout)
            self._drain(self.config.server.drain_timeout)
        elif self.life is Life.DRAINING:
            log.warning("stopping at once signal=%s", signal.Signals(number).name)
            self._drain_until = 0.0

    def _drain(self, seconds: float) -> None:
        self._become(Life.DRAINING)
        self._drain_until = time.monotonic() + seconds
        self.notifier.stopping(seconds)
        self.listeners.stop_accepting()

    def _become(self, life: Life) -> None:
        """The one door of the life state."""
        if life not in STEPS[self.life]:
            raise AssertionError(f"{self.life} → {life}")
        self.life = life

    def _quiet(self) -> bool:
        return self.listeners.open == 0 and not self.registry.busy()

    # -- what the service manager is told --------------------------------------------------------------------------

    def _report(self) -> None:
        """In each turn: once that Hermes is ready, and then that it is well."""
        self.notifier.flush()
        if self.life is not Life.SERVING:
            return
        now = time.monotonic()
        if not self._stands and self.registry.staffed():
            self._stands = True
            self._say_ready()
            self.watchdog.start(now)
        if self.watchdog.well(now):
            self.notifier.well()

    def _say_ready(self) -> None:
        self.notifier.ready(f"listening on {self.server.url}, {len(self.config.models)} models")

    def _reload_as_told(self) -> None:
        """The manager waits for the end of a reload, also of one that is refused; before the start has ended it waits for that."""
        if self._stands:
            self.notifier.reloading(time.monotonic())
        self._reload()
        if self._stands:
            self._say_ready()

    # -- stopping --------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Cut what still runs, tell its clients, end the workers."""
        self.supervisor.stopping = True
        cut = self.registry.busy()
        self.registry.refuse(Draining("Hermes is stopping"))
        if cut:
            log.warning("cutting what still runs running=%d", len(self.registry.leased()))
            for child in self.registry.leased():
                child.unwanted = True
                child.kill()
            late = time.monotonic() + LAST_WORDS
            while self.listeners.open and time.monotonic() < late:
                self.supervisor.step(min(late, time.monotonic() + TICK))
        self.supervisor.stop(time.monotonic() + 1.0)
        if self._keeper:
            self._keeper.close()
        self.notifier.close()
        log.info("stopped")

    # -- reload ----------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """Validate first; then pools are resized, added and retired without touching what runs."""
        try:
            new = self._read_config()
        except ConfigError as error:
            for problem in error.problems:
                log.error("configuration not reloaded: %s", problem)
            return
        if why := self.listeners.refusal(new):
            log.error("configuration not reloaded: %s", why)
            return
        old, self.config = self.config, new
        self.dispatcher.upstream = _upstream(new)
        self.dispatcher.derivatives.forget()
        self.listeners.apply(old, new)
        self.registry.apply(new)
        logs.apply(new.log.level, new.log.format)
        log.info("configuration reloaded config=%s models=%d", new.path or "built-in", len(new.models))

    # -- what the server asks --------------------------------------------------------------------------------------

    def serving(self) -> bool:
        return self.life is Life.SERVING

    def see(self, client) -> status.Seen:
        """Ask Ollama how it is, with little patience: a status page must answer."""
        upstream = self.dispatcher.upstream
        brief = Dispatcher(self.registry, upstream._replace(timeouts=BRIEF))
        return status.see_ollama(lambda path: brief.ask("GET", path, client))

    def status(self, seen: status.Seen, call: Call) -> dict:
        requests = [one if sees(call, one.client) else one.disguised() for one in self.live.pictures(time.monotonic())]
        facts = status.Facts(self.life.value, self._started, self.dispatcher.upstream.url, self.counters.snapshot(),
                             self.supervisor.starting(), requests, logs.dropped())
        return status.picture(facts, self.registry.snapshots(), seen)

    def _whose(self, call: Call) -> str | None:
        """Whose usage a call may see; None = everybody's."""
        everybodys = call.principal.manage or not (self.config.clients or self.listeners.admin)
        return None if everybodys else call.principal.name

    def _admit(self, admit: Callable[[Call], None], call: Call) -> None:
        admit(call)                             # first, so that a page can read whatever it is answered after that
        if not self.serving() and call.request.path not in health.PATHS:
            raise Draining("Hermes is stopping")

    def _charge(self, call: Call) -> None:
        """Before a model is made to work. Raises QuotaExceeded."""
        if call.principal.tokens_per_day is not None:
            self._reserve.take(call.principal.name, call.principal.tokens_per_day)
            call.reserved = True

    def _note(self, call: Call, status: int, outcome: str) -> None:
        """Told of every request once, at its end."""
        if call.request.path in health.PATHS:
            return
        self.counters.note(outcome)
        if used := spent(call, status, outcome):
            self.usage.add(used)
        if call.reserved:
            self._reserve.give_back(call.principal.name)
        code = (call.error.code,) if call.error else ()
        access.info("request method=%s path=%s client=%s model=%s status=%d outcome=%s" + (" code=%s" if code else "")
                    + " queue_s=%.3f duration_s=%.3f request_id=%s",
                    call.request.method, logs.word(call.request.path[:256]), self._name(call), logs.word(call.model[:128]), status, outcome, *code,
                    call.queued, time.monotonic() - call.arrived, logs.word(call.request_id))

    @staticmethod
    def _name(call: Call) -> str:
        """Who asked; of someone without a valid key only the address is known."""
        return call.client.address if call.principal is NOBODY else call.principal.name


def _upstream(settings: Config) -> Upstream:
    ollama = settings.ollama
    timeouts = Timeouts(ollama.connect_timeout, ollama.first_byte_timeout, ollama.idle_timeout, ollama.total_timeout)
    return Upstream(ollama.url, timeouts, ollama.allow_cloud)


def _open_keeper(folder: str):
    """The keeper of the usage, or None without a folder: then sqlite3 is not even loaded. Raises UsageUnusable."""
    if not folder:
        return None
    try:
        from hermes.observe.usagefile import open_keeper
    except ImportError:
        raise UsageUnusable("cannot keep the usage: this Python has no sqlite3; leave state_dir out") from None
    return open_keeper(folder)


def _raise_descriptor_limit() -> None:
    """A waiting client takes two descriptors; the soft limit of 1,024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        log.debug("descriptor limit stays at %d", soft)


def build(path: str | None, environ: Mapping[str, str], notifier: Notifier | None = None) -> Application:
    """Raises ConfigError, OSError, UsageUnusable."""
    def read() -> Config:
        return config.load(path or config.find(environ), environ)
    return Application(read(), read, notifier)
