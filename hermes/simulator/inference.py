"""Running a model: from the scheduler to the last token. The same for every dialect; a shape says how records look."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hermes.simulator.exchange import ApiError, Exchange
from hermes.simulator.models import Name, SimModel
from hermes.simulator.runner import Busy, NoMemory, Want
from hermes.simulator.shapes import RUNNER_DIED, Call, Result, Shape
from hermes.simulator.text import Tokens, encode, expected_text, expected_thinking, prompt_tokens, thinking_of

_BUSY = "server busy, please try again.  maximum pending requests exceeded"
# Options that make a new runner, and what they are when neither model nor request says (ollama-api.md §0.11, §1.13).
_LOAD_OPTIONS = {"num_batch": None, "num_gpu": -1, "main_gpu": 0, "use_mmap": None, "num_thread": 0, "draft_num_predict": 4}
_LEAST_CONTEXT, _LEAST_CONTEXT_WITH_VISION = 4, 2048
_INTEGERS = ("num_ctx", "num_predict", "num_batch", "num_gpu", "main_gpu", "num_thread", "seed", "top_k", "num_keep",
             "draft_num_predict")


@dataclass(frozen=True)
class Ask:
    """What to generate."""

    want: Want
    prompt: str
    stream: bool
    limit: int
    """num_predict or max_tokens; none if not positive."""
    words: tuple[str, ...] | None = None
    """What to say, token by token, if it is not what the prompt alone decides (hermes.simulator.wishes)."""
    calls: tuple[Call, ...] = ()
    thinks: bool = False
    """Whether a model that can think is to."""


@dataclass(frozen=True)
class _Plan:
    """The tokens of an answer: first thoughts, then what it says."""

    thoughts: int
    count: int
    """Thoughts included."""
    reason: str


def want(x: Exchange, name: Name, model: SimModel, options: dict[str, Any], keep_alive: float | None) -> Want:
    """What a request needs of the scheduler."""
    given = _LOAD_OPTIONS | {option: value for option, value in (*model.options, *options.items()) if value is not None}
    for option in _INTEGERS:
        if isinstance(given.get(option), bool) or not isinstance(given.get(option), int | float | None):
            raise ApiError(500, f'option "{option}" must be of type integer')
    least = _LEAST_CONTEXT_WITH_VISION if "vision" in model.capabilities else _LEAST_CONTEXT
    context = max(least, min(int(given.get("num_ctx", model.context)), model.trained_context))
    others = tuple(int(given[each]) if each in _INTEGERS and given[each] is not None else given[each] for each in _LOAD_OPTIONS)
    load_times = (x.pace.load_time, model.load_time, x.house.load_time)
    load_time = next(seconds for seconds in load_times if seconds is not None)
    return Want(name.short, model, load_time, context, others, keep_alive)


def load_only(x: Exchange, shape: Shape, needed: Want) -> None:
    """A request without a prompt: answered when the model is loaded, in one object (ollama-api.md §3.3)."""
    with refusals(), x.house.scheduler.hold(x.client, needed, x.entered):
        pass
    x.wire.answer(200, shape.whole_type, shape.only_loaded("load"))


def generate(x: Exchange, shape: Shape, ask: Ask) -> None:
    """A generation, streamed or whole. The slot is free before the client has the last byte."""
    _check_length(x, ask)
    fault = x.wire.fault
    with refusals(), x.house.scheduler.lease(x.client, ask.want, x.entered):
        ready = time.monotonic()
        x.client.pause(x.pace.prompt_time)
        result = _produce(x, shape, ask, ready)
    if fault.error_line and not ask.stream:
        raise ApiError(500, RUNNER_DIED)
    if not ask.stream:
        x.wire.answer(200, shape.whole_type, shape.garbage if fault.garbage else shape.whole(result))
    elif fault.error_line or fault.no_done:
        x.wire.close()
    else:
        *chunks, last = shape.closing(result)
        for chunk in chunks:
            x.wire.chunk(chunk)
        x.wire.close(last)


def _produce(x: Exchange, shape: Shape, ask: Ask, ready: float) -> Result:
    """In the slot: the tokens, each at its time."""
    plan = _plan(x, ask)
    start = time.monotonic()
    if ask.stream:
        _stream(x, shape, ask, plan)
    else:
        x.client.pause_until(start + (plan.count - 1) * x.pace.interval)
    said = plan.count - plan.thoughts
    text = expected_text(ask.prompt, said) if ask.words is None else "".join(ask.words[:said])
    end = time.monotonic()
    return Result(
        text, expected_thinking(ask.prompt, plan.thoughts), plan.reason, prompt_tokens(ask.prompt), plan.count,
        _ns(end - x.record.arrived), _ns(ready - x.record.arrived), _ns(start - ready), _ns(end - start), ask.calls,
    )


def _stream(x: Exchange, shape: Shape, ask: Ask, plan: _Plan) -> None:
    """Everything up to the last token, or to the middle if the runner dies there."""
    fault, start = x.wire.fault, time.monotonic()
    think, say = Tokens(thinking_of(ask.prompt)).fragment, _speaker(ask)
    x.wire.open(200, shape.stream_type, shape.stream_headers)
    _chunks(x, shape.opening())
    for index in range(plan.count):
        x.client.pause_until(start + index * x.pace.interval)
        thinking = index < plan.thoughts
        if index in (0, plan.thoughts):
            _chunks(x, shape.turn("thinking" if thinking else "text"))
        x.wire.chunk(shape.thought(index, think(index)) if thinking else shape.token(index, say(index - plan.thoughts)))
        if index == plan.count // 2 and fault.garbage:
            x.wire.chunk(shape.garbage)
        if index == plan.count // 2 and fault.error_line:
            break
    if fault.error_line:
        _chunks(x, (shape.broken(),))


def _chunks(x: Exchange, chunks: tuple[bytes, ...]) -> None:
    """Those that are there: an empty chunk would end the stream."""
    for chunk in filter(None, chunks):
        x.wire.chunk(chunk)


def _speaker(ask: Ask) -> Callable[[int], bytes]:
    """The tokens of what it says, by number, escaped for JSON."""
    words = ask.words
    return Tokens(ask.prompt).fragment if words is None else lambda index: encode(words[index])[1:-1]


def _plan(x: Exchange, ask: Ask) -> _Plan:
    """How many tokens, and why no more. An answer that calls tools says nothing else, unless asked for tokens too."""
    thoughts = x.pace.thoughts if ask.thinks and "thinking" in ask.want.model.capabilities else 0
    own = x.pace.tokens if ask.words is None else len(ask.words)
    if own is None and ask.calls:
        own = 0
    if ask.limit > 0 and (own is None or thoughts + own >= ask.limit):
        return _Plan(min(thoughts, ask.limit), ask.limit, "length")
    return _Plan(thoughts, thoughts + (x.house.tokens if own is None else own), "stop")


def _check_length(x: Exchange, ask: Ask) -> None:
    """The runner's own JSON, as a string in the error (ollama-api.md §2.2)."""
    count, context = prompt_tokens(ask.prompt), ask.want.context
    if count > context:
        text = f"request ({count} tokens) exceeds the available context size ({context} tokens), try increasing it"
        inner = {"code": 400, "message": text, "type": "exceed_context_size_error"}
        inner |= {"n_prompt_tokens": count, "n_ctx": context}
        raise ApiError(400, encode({"error": inner}).decode("utf-8"), late=ask.stream)


def _ns(seconds: float) -> int:
    return max(1, int(seconds * 1_000_000_000))


@contextmanager
def refusals() -> Iterator[None]:
    """Turns the scheduler's refusals into Ollama's answers."""
    try:
        yield
    except Busy:
        raise ApiError(503, _BUSY) from None
    except NoMemory as error:
        raise ApiError(500, f"model requires more system memory ({error}) than is available") from None
