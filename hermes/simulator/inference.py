"""Running a model: from the scheduler to the last token. The same for every dialect; a shape says how records look."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hermes.simulator.exchange import ApiError, Exchange
from hermes.simulator.models import Name, SimModel
from hermes.simulator.runner import Busy, NoMemory, Want
from hermes.simulator.shapes import RUNNER_DIED, Call, Result, Shape
from hermes.simulator.text import Tokens, encode, expected_text, prompt_tokens

_BUSY = "server busy, please try again.  maximum pending requests exceeded"
# Options that make a new runner, and what they are when a request does not say (ollama-api.md §0.11).
_LOAD_OPTIONS = ("num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")
_INTEGERS = ("num_ctx", "num_predict", "num_batch", "num_gpu", "main_gpu", "num_thread", "seed", "top_k", "num_keep")


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


def want(x: Exchange, name: Name, model: SimModel, options: dict[str, Any], keep_alive: float | None) -> Want:
    """What a request needs of the scheduler."""
    for option in _INTEGERS:
        if isinstance(options.get(option, 0), bool) or not isinstance(options.get(option, 0), int | float):
            raise ApiError(500, f'option "{option}" must be of type integer')
    context = int(options.get("num_ctx", model.context))
    others = tuple(options.get(each) for each in _LOAD_OPTIONS)
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
    count, reason = _length(x, ask)
    fault, interval = x.wire.fault, x.pace.interval
    start = time.monotonic()
    if not ask.stream:
        x.client.pause_until(start + (count - 1) * interval)
    else:
        fragment = Tokens(ask.prompt).fragment if ask.words is None else lambda index: encode(ask.words[index])[1:-1]
        x.wire.open(200, shape.stream_type, shape.stream_headers)
        for chunk in shape.opening():
            x.wire.chunk(chunk)
        for index in range(count):
            x.client.pause_until(start + index * interval)
            x.wire.chunk(shape.token(index, fragment(index)))
            if index == count // 2 and fault.garbage:
                x.wire.chunk(shape.garbage)
            if index == count // 2 and fault.error_line:
                if broken := shape.broken():
                    x.wire.chunk(broken)
                break
    text = expected_text(ask.prompt, count) if ask.words is None else "".join(ask.words[:count])
    end = time.monotonic()
    return Result(
        text, reason, prompt_tokens(ask.prompt), count,
        _ns(end - x.record.arrived), _ns(ready - x.record.arrived), _ns(start - ready), _ns(end - start), ask.calls,
    )


def _length(x: Exchange, ask: Ask) -> tuple[int, str]:
    """How many tokens, and why no more."""
    if ask.words is not None:
        return len(ask.words), "stop"
    own = x.pace.tokens
    if ask.limit > 0 and (own is None or own >= ask.limit):
        return ask.limit, "length"
    return x.house.tokens if own is None else own, "stop"


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
