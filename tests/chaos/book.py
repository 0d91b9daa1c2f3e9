"""What was done and what was seen, by number of request; and what is wrong about it when everything has ended. Any thread may write."""

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from hermes.simulator import SimRequest
from tests.chaos import judge
from tests.chaos.asks import number_of, request_id
from tests.chaos.judge import Seen
from tests.chaos.plan import Ask, Step

TOLD = 48                   # steps that are told of when something was wrong


@dataclass
class Book:
    """`cancelled` has the numbers of those that somebody has tried to end; `at_work` each thread's step; `wrong` is set by the first complaint."""

    seed: int
    steps: deque[str] = field(default_factory=lambda: deque(maxlen=TOLD))
    complaints: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    answers: list[tuple[Ask, Seen]] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)
    at_work: dict[int, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    wrong: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    def note(self, step: Step) -> None:
        text = f"{time.monotonic() - self.began:8.3f} s  {step!s:.600}"
        self.count(f"step {type(step).__name__}")
        self.at_work[threading.get_ident()] = text
        if not self.wrong.is_set():         # the steps before the first complaint are those that tell
            self.steps.append(text)

    def done(self) -> None:
        """With the step that this thread has noted."""
        self.at_work.pop(threading.get_ident(), None)

    def complain(self, about: object, found: Iterable[str]) -> None:
        for text in found:
            self.complaints.append(f"seed {self.seed}, {time.monotonic() - self.began:.3f} s, {about!s:.600}: {text}")
            self.wrong.set()

    def answered(self, ask: Ask, seen: Seen, calm: bool = False) -> None:
        reply = seen.reply
        how = "" if not reply.status else " whole" if reply.complete else " in part" if seen.cut_short else " cut"
        self.count(f"{'calm ' if calm else ''}{'stayed' if ask.manner.stays else ask.manner.phase} {reply.status or 'nothing'}{how}")
        self.answers.append((ask, seen))
        self.complain(ask, judge.judge(ask, seen, request_id(self.seed, ask.number), cancelled=ask.number in self.cancelled, calm=calm))

    def statuses(self) -> dict[str, int]:
        """What the log must say of those that stayed. A request whose head did not come in time has an id of Hermes's own."""
        return {request_id(self.seed, ask.number): seen.reply.status for ask, seen in self.answers
                if ask.manner.stays and seen.reply.status not in (0, 408)}

    def look_back(self, requests: Iterable[SimRequest]) -> None:
        """Every answer, held against what the stand-in has written down."""
        said: defaultdict[int | None, list[bytes]] = defaultdict(list)
        for request in requests:
            if request.inference:
                said[number_of(request.prompt)].append(request.sent)
        for ask, seen in self.answers:
            self.complain(ask, judge.judge_bytes(ask, seen.reply, said[ask.number]) + judge.judge_attempts(ask, len(said[ask.number])))
