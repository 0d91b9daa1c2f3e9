"""What is done, and when: a script that a seed decides alone. Pure.

Times are seconds since the storm began. A step that has to be taken back, such as a stop or a pause, brings the step that does so along.
"""

import heapq
import random
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, replace

RATE = 40.0                 # steps a second, on average
TEXT_ROUTES = ("/api/chat", "/api/generate", "/v1/chat/completions", "/v1/messages", "/v1/llm/")
EMBEDDING_ROUTES = ("/api/embed", "/v1/embeddings")
LOOKS = ("/v1/status", "/livez", "/readyz", "/api/tags", "/api/ps", "/api/version", "/v1/models", "/v1/models/g", "/v1/usage", "/")
NAMES = {"m": "smollm2:135m", "g": "gemma3:270m", "e": "all-minilm:latest"}
"""Each model by the configuration's name and Ollama's."""
CLIENTS = ("alice", "bob", "carol", "dave")
SIZES = {"m": (1, 4), "g": (1, 3), "e": (1, 2)}
BROKEN = ("syntax", "key", "value", "gone")


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the script. As text it is short: what is as usual is left out."""

    number: int
    at: float

    def __str__(self) -> str:
        told = {field.name: getattr(self, field.name) for field in fields(self)
                if field.name not in ("number", "at") and (field.default is MISSING or getattr(self, field.name) != field.default)}
        return f"#{self.number} {type(self).__name__} " + " ".join(f"{name}={value!s}" for name, value in told.items())


@dataclass(frozen=True, slots=True)
class Manner:
    """How a client behaves: `phase` is "stay", "slow" (it sends slowly), "stall" (it does not read for `seconds`), or when it leaves: in
    the "head", in the "body", `seconds` after it has "sent" all, or "streaming" when `size` bytes have come. `how` it does: fin, rst, half."""

    phase: str = "stay"
    how: str = ""
    seconds: float = 0.0
    size: int = 0

    @property
    def stays(self) -> bool:
        return self.phase in ("stay", "slow")


@dataclass(frozen=True, slots=True)
class Ask(Step):
    """A request to a model. `wish` is for the stand-in: the fault, if there is one. `behind` comes pipelined after it."""

    route: str
    model: str
    stream: bool
    tokens: int
    interval: float
    wish: str = ""
    who: str = "alice"
    rank: str = ""
    manner: Manner = Manner()
    behind: "Ask | None" = None

    @property
    def fault(self) -> str:
        return self.wish.partition("=")[0]


@dataclass(frozen=True, slots=True)
class Rubbish(Step):
    """Bytes that are no good request; `half`: the client says that no more comes."""

    data: bytes
    half: bool


@dataclass(frozen=True, slots=True)
class Look(Step):
    path: str
    who: str


@dataclass(frozen=True, slots=True)
class Cancel(Step):
    of: int


@dataclass(frozen=True, slots=True)
class Rest(Step):
    model: str
    paused: bool


@dataclass(frozen=True, slots=True)
class Kill(Step):
    """`pick` is which worker: a share of those that are there."""

    pick: float


@dataclass(frozen=True, slots=True)
class Stop(Step):
    pick: float


@dataclass(frozen=True, slots=True)
class Continue(Step):
    of: int


@dataclass(frozen=True, slots=True)
class Outage(Step):
    """Ollama goes, or comes back."""

    down: bool


@dataclass(frozen=True, slots=True)
class Reload(Step):
    """`sizes` of the pools m, g and e; `unlisted`: g is not in the file, and is served all the same by Ollama's name; `loaded`: Hermes says how long
    models stay loaded, for which some requests have to be preceded by another; `broken` names what is wrong with the file, if anything is."""

    sizes: tuple[int, int, int] = (3, 2, 1)
    queue: int = 10
    patience: float = 3.0
    plain_beats: bool = False
    share: int = 2
    unlisted: bool = False
    loaded: bool = False
    broken: str = ""


def script(seed: int, seconds: float) -> list[Step]:
    """In order of time. A longer script of the same seed begins with the same steps."""
    return list(_until(_steps(random.Random(seed)), seconds))


def _until(steps: Iterator[list[Step]], seconds: float) -> Iterator[Step]:
    """Merges what comes later into its place; what would come behind the end is left out."""
    heap: list[tuple[float, int, Step]] = []
    for born in steps:
        while heap and heap[0][0] <= born[0].at:
            yield heapq.heappop(heap)[2]
        if born[0].at >= seconds:
            return
        for step in born:
            if step.at < seconds:
                heapq.heappush(heap, (step.at, step.number, step))


def _steps(draw: random.Random) -> Iterator[list[Step]]:
    """Each step with those that it brings along, the earliest first."""
    at, number, up = 0.0, 0, 0.0
    while True:
        at += draw.expovariate(RATE)
        kind = draw.choices(list(_KINDS), [weight for weight, _ in _KINDS.values()])[0]
        if kind == "outage" and at < up:
            kind = "ask"                        # Ollama is gone already
        born = _KINDS[kind][1](draw, number, at)
        if kind == "outage":
            up = born[1].at
        number += 2                             # a step and one that it brings along
        yield born


def _ask(draw: random.Random, number: int, at: float) -> list[Step]:
    first = _plain_ask(draw, number, at)
    manner, wish = _manner(draw), _wish(draw) if draw.random() < 0.2 else ""
    if manner.phase == "stall":
        return [replace(first, route="/api/generate", model="m", stream=True, tokens=20_000, interval=0.0, manner=manner)]
    behind = _plain_ask(draw, number + 1, at) if draw.random() < 0.04 else None
    return [replace(first, wish=wish, manner=manner if behind is None else Manner(), behind=behind)]


def _plain_ask(draw: random.Random, number: int, at: float) -> Ask:
    who, rank = draw.choice(CLIENTS), draw.choice(("", "", "interactive", "normal", "background"))
    if draw.random() < 0.12:
        return Ask(number, at, draw.choice(EMBEDDING_ROUTES), draw.choice(("e", NAMES["e"])), False, 1, 0.0, who=who, rank=rank)
    key = draw.choice("mmg")
    return Ask(number, at, draw.choice(TEXT_ROUTES), draw.choice((key, NAMES[key])), draw.random() < 0.65, draw.randint(1, 60),
               draw.choice((0.0, 0.0, 0.002, 0.01, 0.03)), who=who, rank=rank)


def _manner(draw: random.Random) -> Manner:
    kind, how = draw.random(), draw.choice(("fin", "rst", "half"))
    if kind < 0.60:
        return Manner()
    if kind < 0.65:
        return Manner("slow", seconds=draw.uniform(0.1, 0.6))
    if kind < 0.66:
        return Manner("stall", seconds=draw.uniform(0.2, 3.0))
    if kind < 0.71:
        return Manner(draw.choice(("head", "body")), how)
    if kind < 0.88:
        return Manner("sent", how, seconds=draw.choice((0.0, draw.uniform(0, 0.05), draw.uniform(0, 1.0))))
    return Manner("streaming", how, size=draw.choice((1, draw.randint(1, 400), draw.randint(1, 5000))))


def _wish(draw: random.Random) -> str:
    by = draw.choice(("fin", "rst"))
    return draw.choice((
        f"cut={draw.randint(0, 400)},by={by}", f"cut_body={draw.randint(0, 3000)},by={by}", f"cut_body={draw.randint(0, 300)},by={by}",
        f"stall={draw.randint(0, 2000)}", "refuse=1", "error_line=1", "no_done=1", "garbage=1", f"status={draw.choice((429, 500, 503))}",
        f"delay={draw.uniform(0.1, 2.6):.3f}", "drip=0.0005", f"load_time={draw.uniform(0.1, 1.5):.3f}", f"prompt_time={draw.uniform(0.05, 1.2):.3f}"))


def _rubbish(draw: random.Random, number: int, at: float) -> list[Step]:
    return [Rubbish(number, at, draw.choice(RUBBISH) if draw.random() < 0.8 else draw.randbytes(draw.randint(1, 300)), draw.random() < 0.5)]


RUBBISH = (
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", b"BREW /pot HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /nothing/here HTTP/1.1\r\nHost: localhost\r\n\r\n", b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
    b"DELETE /api/generate HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")


def _cancel(draw: random.Random, number: int, at: float) -> list[Step]:
    return [Cancel(number, at, max(0, number - 2 * draw.randint(1, 40)))]


def _stop(draw: random.Random, number: int, at: float) -> list[Step]:
    """Half of them come to life again before anybody can have lost patience."""
    first = Stop(number, at, draw.random())
    return [first, Continue(number + 1, at + draw.choice((draw.uniform(0.01, 0.8), 20.0)), number)]


def _rest(draw: random.Random, number: int, at: float) -> list[Step]:
    model = draw.choice("mge")
    return [Rest(number, at, model, True), Rest(number + 1, at + draw.uniform(0.05, 1.5), model, False)]


def _outage(draw: random.Random, number: int, at: float) -> list[Step]:
    return [Outage(number, at, True), Outage(number + 1, at + draw.uniform(0.05, 2.0), False)]


def _reload(draw: random.Random, number: int, at: float) -> list[Step]:
    if draw.random() < 0.3:
        return [Reload(number, at, broken=draw.choice(BROKEN))]
    sizes = tuple(draw.randint(*SIZES[key]) for key in "mge")
    return [Reload(number, at, sizes, draw.choice((0, 3, 8, 12, 24)), draw.choice((0.5, 2.0, 3.0)), draw.random() < 0.3, draw.randint(1, 3),
                   draw.random() < 0.25, draw.random() < 0.25)]


_KINDS = {
    "ask": (76, _ask), "look": (7, lambda draw, number, at: [Look(number, at, draw.choice(LOOKS), draw.choice(CLIENTS))]), "rubbish": (5, _rubbish),
    "cancel": (5, _cancel), "kill": (2.2, lambda draw, number, at: [Kill(number, at, draw.random())]), "stop": (0.8, _stop), "rest": (0.7, _rest),
    "outage": (0.4, _outage), "reload": (1.5, _reload)}
