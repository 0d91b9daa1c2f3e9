"""The storm: a calm, then the script, then whether everything is as it was. The main thread conducts; each actor has a thread."""

import queue
import threading
import time

from hermes.simulator import Simulator
from tests.chaos import judge
from tests.chaos.actors import Actor
from tests.chaos.asks import request_id
from tests.chaos.book import Book
from tests.chaos.faults import Faults
from tests.chaos.house import CALM, LONGEST, config
from tests.chaos.plan import EMBEDDING_ROUTES, NAMES, TEXT_ROUTES, Ask, Cancel, Look, Rest, Rubbish, Step, script
from tests.harness import SLOW, Hermes, descriptors, eventually, in_threads, status_field, zombies

ACTORS = 40
ROUNDS = 8                  # of the calm, so that memory has settled; fewer where the storm is too short to make it grow
WARM_ACTORS = 8             # few enough that the calm's queues hold them all
PATIENCE = LONGEST + 5.0 * SLOW     # seconds for an answer
HEALED = 60.0 + 5.0 * SLOW  # seconds until everybody has been answered and the pools are full: one that was given up rests for 30
QUIET = 5.0 * SLOW          # seconds until the last connections and threads have ended
GROWTH = 6 * 1024           # kB that the parent may have grown by
BROKEN = (AssertionError, OSError, ValueError, queue.Full)
WARM, LAST, OURS = 10_000_000, 20_000_000, 30_000_000      # where the numbers of requests begin that are not in the script


class Storm:
    def __init__(self, seed: int, seconds: float):
        self.book = Book(seed)
        self._seed, self._seconds = seed, seconds
        self._number = OURS

    def run(self) -> Book:
        try:
            with Simulator(parallel=8, load_time=0.02, keep_bodies=True) as ollama, Hermes(ollama.url, config(CALM), measured=True) as hermes:
                self._hermes, self._ollama = hermes, ollama
                self._admin = Actor(hermes.port, self._seed, PATIENCE)
                self._faults = Faults(hermes, ollama)
                self._run()
        except BROKEN as error:             # Hermes has ended, or has a traceback in its log
            self.book.complain("Hermes", [f"{type(error).__name__}: {error!s:.2000}"])
        return self.book

    def _run(self) -> None:
        self._heal("the start")
        self._ask_all([ask for number in range(ROUNDS if self._seconds > 10 else 2) for ask in self._good_asks(WARM + 1000 * number)])
        before = self._vitals()
        try:
            self._rage()
            self._heal("the storm")
            self._ask_all(self._good_asks(LAST))
            self._compare(before)
        except BROKEN as error:
            self.book.complain("what was left of the storm", [f"{type(error).__name__}: {error}"])
        self._look_back()

    # -- the storm -------------------------------------------------------------------------------------------------

    def _rage(self) -> None:
        jobs: queue.Queue[Step | None] = queue.Queue(maxsize=1)
        actors = [threading.Thread(target=self._act, args=(jobs,), daemon=True) for _ in range(ACTORS)]
        for actor in actors:
            actor.start()
        self.book.began = time.monotonic()
        end = self.book.began + self._seconds
        for step in script(self._seed, self._seconds):
            if self.book.wrong.wait(max(0.0, self.book.began + step.at - time.monotonic())) or not self._conduct(step, jobs, end):
                break
        over = time.monotonic()
        self.book.complain("the last reload", self._faults.end())
        for model in NAMES:
            self._rest(Rest(self._next(), 0.0, model, False), self._admin)
        late = time.monotonic() + PATIENCE + QUIET     # so that each says first what he has waited for
        for _ in actors:
            jobs.put(None, timeout=PATIENCE)
        for actor in actors:
            actor.join(max(0.0, late - time.monotonic()))
        assert not any(actor.is_alive() for actor in actors), f"some clients are waiting still: {[*self.book.at_work.values()]}"
        self.book.counts["ms until the last answer"] = round((time.monotonic() - over) * 1000)

    def _conduct(self, step: Step, jobs: queue.Queue, end: float) -> bool:
        """False: the time is over."""
        if isinstance(step, Ask | Look | Rubbish | Cancel | Rest):
            try:
                jobs.put(step, timeout=max(0.0, end - time.monotonic()))
            except queue.Full:
                return False
        else:
            self.book.note(step)
            self.book.complain(step, self._faults.do(step))
            self.book.done()
        return time.monotonic() < end

    def _act(self, jobs: queue.Queue) -> None:
        """The life of an actor, in its thread."""
        actor = Actor(self._hermes.port, self._seed, PATIENCE)
        while (step := jobs.get()) is not None:
            self.book.note(step)
            try:
                self._play(step, actor)
            except Exception as error:
                self.book.complain(step, [f"{type(error).__name__}: {error}"])
            self.book.done()
        actor.close()

    def _play(self, step: Ask | Look | Rubbish | Cancel | Rest, actor: Actor) -> None:
        if isinstance(step, Ask):
            for ask, seen in actor.ask(step):
                self.book.answered(ask, seen)
        elif isinstance(step, Rubbish):
            self.book.complain(step, judge.judge_refusal(*actor.rubbish(step)))
        elif isinstance(step, Cancel):
            self.book.cancelled.add(step.of)
            reply = actor.call("DELETE", f"/v1/requests/{self._id(step.of)}", step.number)
            self.book.count(f"cancel {reply.status}")
            self.book.complain(step, [] if reply.complete and reply.status in (200, 404) else [f"status {reply.status}: {reply.body!r}"])
        elif isinstance(step, Rest):
            self._rest(step, actor)
        else:
            reply = actor.call("GET", step.path, step.number, step.who)
            self.book.count(f"look {reply.status}")
            self.book.complain(step, judge.judge_look(step.path, reply, limited=step.who == judge.LIMITED, cancelled=step.number in self.book.cancelled))

    def _rest(self, step: Rest, actor: Actor) -> None:
        reply = actor.call("POST", f"/v1/llm/{step.model}/{'pause' if step.paused else 'resume'}", step.number)
        wanted = b'{"status":"paused"}' if step.paused else b'{"status":"running"}'
        unknown = step.model == judge.GOES and reply.status in (404, *judge.ALWAYS) and b"error" in reply.body       # Ollama is asked whether it has it
        self.book.complain(step, [] if unknown or (reply.status, reply.body) == (200, wanted) else [f"status {reply.status}: {reply.body!r}"])

    def _id(self, number: int) -> str:
        return request_id(self._seed, number)

    def _next(self) -> int:
        self._number += 1
        return self._number

    # -- before and behind it --------------------------------------------------------------------------------------

    def _heal(self, after: str) -> None:
        """Everybody has been answered, and the pools are full. Raises AssertionError."""
        last: list[dict] = []

        def quiet() -> bool:
            status = self._admin.call("GET", "/v1/status", self._next()).json()
            last[:] = [{"totals": status.get("totals")}, *status.get("models", [])]
            return self._is_quiet(status)
        try:
            eventually(quiet, HEALED)
        except AssertionError:
            raise AssertionError(f"{HEALED:g} s after {after} it is not over: {last}") from None

    @staticmethod
    def _is_quiet(status: dict) -> bool:
        full = all(model["workers"]["idle"] == model["workers"]["max"] and not model["closed"] and not model["paused"] for model in status["models"])
        return full and status["totals"]["running"] == status["totals"]["queued"] == 0

    def _good_asks(self, number: int) -> list[Ask]:
        """One of each kind."""
        kinds = [(route, name, stream) for route in TEXT_ROUTES for key in "mg" for name in (key, NAMES[key]) for stream in (True, False)]
        kinds += [(route, name, False) for route in EMBEDDING_ROUTES for name in ("e", NAMES["e"])]
        return [Ask(number + place, 0.0, route, model, stream, 12, 0.0) for place, (route, model, stream) in enumerate(kinds)]

    def _ask_all(self, asks: list[Ask]) -> None:
        """Each is answered as it should be."""
        def some(number: int) -> None:
            actor = Actor(self._hermes.port, self._seed, PATIENCE)
            for ask in asks[number::WARM_ACTORS]:
                for answer in actor.ask(ask):
                    self.book.answered(*answer, calm=True)
            actor.close()
        in_threads(WARM_ACTORS, some, timeout=PATIENCE)

    def _vitals(self) -> dict[str, int]:
        """What must not grow. A connection may still be closing: the smallest of a few looks is the settled one."""
        pid, looks = self._hermes.pid, []
        for _ in range(50):
            looks.append((descriptors(pid), int(status_field(pid, "Threads"))))
            threading.Event().wait(0.01)
        return {"descriptors": min(look[0] for look in looks), "threads": min(look[1] for look in looks), "workers": len(self._hermes.children()),
                "kB": int(status_field(pid, "VmRSS"))}

    def _compare(self, before: dict[str, int]) -> None:
        """Raises AssertionError."""
        def nothing_left() -> bool:
            after.update(self._vitals())
            return (all(after[name] <= before[name] for name in ("descriptors", "threads")) and after["workers"] == before["workers"]
                    and not zombies(self._hermes.pid) and self._ollama.open_connections <= after["workers"])
        after: dict[str, int] = {}
        try:
            eventually(nothing_left, QUIET)
        except AssertionError:
            raise AssertionError(f"something was left behind: {before} before, {after} after, zombies {zombies(self._hermes.pid)}, "
                                 f"{self._ollama.open_connections} connections to Ollama") from None
        self.book.counts["kB grown"] = after["kB"] - before["kB"]
        assert after["kB"] - before["kB"] <= GROWTH, f"it has grown by {after['kB'] - before['kB']} kB"

    def _look_back(self) -> None:
        self.book.counts.update(f"logged {outcome}" for outcome in judge.outcomes(self._hermes.lines))
        self.book.complain("all the storm", self._faults.judge_caps())
        self.book.look_back(self._ollama.requests)
        statuses = self.book.statuses()
        try:                                # a line is written behind the answer's end
            eventually(lambda: not judge.judge_log(list(self._hermes.lines), statuses), QUIET)
        except AssertionError:
            self.book.complain("the log", judge.judge_log(list(self._hermes.lines), statuses))
