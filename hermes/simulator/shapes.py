"""What the records of an answer look like: what every dialect has to say of it, and Ollama's own (ollama-api.md §1.3, §1.4).

A shape belongs to one answer. The token path is byte formatting with prefixes made once; everything that comes once an
answer is encoded as JSON in the ordinary way.
"""

import time
from dataclasses import dataclass, replace
from typing import Protocol
from zlib import crc32

from hermes.simulator.text import encode, timestamp

RUNNER_DIED = "an error was encountered while running the model: unexpected EOF"
_CALL_TOKENS = 12


@dataclass(frozen=True)
class Call:
    """One call of a tool that the model made."""

    id: str
    name: str
    arguments: dict[str, object]
    index: int = 0

    @property
    def native(self) -> dict[str, object]:
        """Arguments are an object."""
        return {"id": self.id, "function": {"index": self.index, "name": self.name, "arguments": self.arguments}}

    @property
    def openai(self) -> dict[str, object]:
        """Arguments are a string."""
        function = {"name": self.name, "arguments": encode(self.arguments).decode("utf-8")}
        return {"id": self.id, "index": self.index, "type": "function", "function": function}


@dataclass(frozen=True)
class Result:
    """How an answer ended."""

    text: str
    thinking: str
    reason: str
    prompt_count: int = 0
    count: int = 0
    """Tokens of text and thinking, each with a record of its own if streamed."""
    total_ns: int = 0
    load_ns: int = 0
    prompt_ns: int = 0
    eval_ns: int = 0
    calls: tuple[Call, ...] = ()

    @property
    def generated(self) -> int:
        """Tokens in all: tool calls are made of some too."""
        return self.count + _CALL_TOKENS * len(self.calls)

    def metrics(self) -> dict[str, object]:
        """The native measurements, in order; nanoseconds."""
        return {
            "total_duration": self.total_ns,
            "load_duration": self.load_ns,
            "prompt_eval_count": self.prompt_count,
            "prompt_eval_duration": self.prompt_ns,
            "eval_count": self.generated,
            "eval_duration": self.eval_ns,
        }

    def usage(self) -> dict[str, int]:
        """OpenAI's counts."""
        total = self.prompt_count + self.generated
        return {"prompt_tokens": self.prompt_count, "completion_tokens": self.generated, "total_tokens": total}


class Shape(Protocol):
    """What a generation needs to know of its dialect."""

    stream_type: str
    stream_headers: bytes
    whole_type: str
    garbage: bytes

    def opening(self) -> tuple[bytes, ...]:
        """What a stream begins with, chunk by chunk; sent with the first token, not before."""

    def turn(self, part: str) -> tuple[bytes, ...]:
        """What comes before the first token of a part, "thinking" or "text", chunk by chunk."""

    def thought(self, index: int, fragment: bytes) -> bytes:
        """The record of one token of thinking."""

    def token(self, index: int, fragment: bytes) -> bytes:
        """One token's record; the fragment is escaped for JSON. `index` counts from the beginning of the answer."""

    def closing(self, result: Result) -> tuple[bytes, ...]:
        """What ends a stream, chunk by chunk; tool calls among it."""

    def whole(self, result: Result) -> bytes:
        """The answer in one piece."""

    def broken(self) -> bytes:
        """What comes when the runner dies in mid stream, b"" if nothing does (ollama-api.md §2.3)."""

    def only_loaded(self, reason: str) -> bytes:
        """The answer to a request without a prompt."""


def now() -> str:
    """The value of created_at."""
    return timestamp(time.time_ns())


class NativeGenerate:
    """/api/generate."""

    stream_type = "application/x-ndjson"
    stream_headers = b""
    whole_type = "application/json; charset=utf-8"
    garbage = b"this line is no JSON\n"

    def __init__(self, model: str, prompt: str, raw: bool = False) -> None:
        self._model = model
        self._prefix = b'{"model":%b,"created_at":"' % encode(model)
        self._context = None if raw else [1, 4093, 198, crc32(prompt.encode("utf-8", "replace")) % 49152]

    def token(self, index: int, fragment: bytes) -> bytes:
        """One line."""
        return b'%b%b","response":"%b","done":false}\n' % (self._prefix, now().encode("ascii"), fragment)

    def thought(self, index: int, fragment: bytes) -> bytes:
        """One line with both fields, the usual one empty."""
        return b'%b%b","response":"","thinking":"%b","done":false}\n' % (self._prefix, now().encode("ascii"), fragment)

    def opening(self) -> tuple[bytes, ...]:
        """Nothing."""
        return ()

    def turn(self, part: str) -> tuple[bytes, ...]:
        """Nothing."""
        return ()

    def closing(self, result: Result) -> tuple[bytes, ...]:
        """The line with done:true. It has all the tool calls, as with models whose own template makes them."""
        return (encode(self._record(replace(result, text="", thinking=""))) + b"\n",)

    def whole(self, result: Result) -> bytes:
        """One object, without a newline."""
        return encode(self._record(result))

    def broken(self) -> bytes:
        """The error line."""
        return encode({"error": RUNNER_DIED}) + b"\n"

    def only_loaded(self, reason: str) -> bytes:
        """Without measurements (ollama-api.md §3.3)."""
        return encode(self._head(Result("", "", reason)) | {"done": True, "done_reason": reason})

    def _head(self, result: Result) -> dict[str, object]:
        thinking = {"thinking": result.thinking} if result.thinking else {}
        return {"model": self._model, "created_at": now(), "response": result.text} | thinking

    def _record(self, result: Result) -> dict[str, object]:
        context = {} if self._context is None else {"context": self._context + list(range(result.count))}
        return self._head(result) | {"done": True, "done_reason": result.reason} | context | result.metrics()


class NativeChat(NativeGenerate):
    """/api/chat."""

    def __init__(self, model: str) -> None:
        super().__init__(model, "", raw=True)

    def token(self, index: int, fragment: bytes) -> bytes:
        """One line."""
        form = b'%b%b","message":{"role":"assistant","content":"%b"},"done":false}\n'
        return form % (self._prefix, now().encode("ascii"), fragment)

    def thought(self, index: int, fragment: bytes) -> bytes:
        """One line with both fields, the usual one empty."""
        form = b'%b%b","message":{"role":"assistant","content":"","thinking":"%b"},"done":false}\n'
        return form % (self._prefix, now().encode("ascii"), fragment)

    def _head(self, result: Result) -> dict[str, object]:
        message: dict[str, object] = {"role": "assistant", "content": result.text}
        if result.thinking:
            message["thinking"] = result.thinking
        if result.calls:
            message["tool_calls"] = [call.native for call in result.calls]
        return {"model": self._model, "created_at": now(), "message": message}
