"""What each record of an answer looks like, native and OpenAI, streaming and whole (ollama-api.md §1.3, §1.4, §1.9).

A shape belongs to one answer. The token path is byte formatting with prefixes made once; everything that comes once an
answer is encoded as JSON in the ordinary way.
"""

import time
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

from hermes.simulator.text import encode, timestamp

RUNNER_DIED = "an error was encountered while running the model: unexpected EOF"


@dataclass(frozen=True)
class Call:
    """One call of a tool that the model made."""

    id: str
    name: str
    arguments: dict[str, object]

    @property
    def native(self) -> dict[str, object]:
        """Arguments are an object."""
        return {"id": self.id, "function": {"index": 0, "name": self.name, "arguments": self.arguments}}

    @property
    def openai(self) -> dict[str, object]:
        """Arguments are a string."""
        function = {"name": self.name, "arguments": encode(self.arguments).decode("utf-8")}
        return {"id": self.id, "index": 0, "type": "function", "function": function}


@dataclass(frozen=True)
class Result:
    """How an answer ended."""

    text: str
    reason: str
    prompt_count: int
    count: int
    total_ns: int
    load_ns: int
    prompt_ns: int
    eval_ns: int
    calls: tuple[Call, ...] = ()

    def metrics(self) -> dict[str, object]:
        """The native measurements, in order; nanoseconds."""
        return {
            "total_duration": self.total_ns,
            "load_duration": self.load_ns,
            "prompt_eval_count": self.prompt_count,
            "prompt_eval_duration": self.prompt_ns,
            "eval_count": self.count,
            "eval_duration": self.eval_ns,
        }

    def usage(self) -> dict[str, int]:
        """OpenAI's counts."""
        total = self.prompt_count + self.count
        return {"prompt_tokens": self.prompt_count, "completion_tokens": self.count, "total_tokens": total}


class Shape(Protocol):
    """What a generation needs to know of its dialect."""

    stream_type: str
    stream_headers: bytes
    whole_type: str
    garbage: bytes

    def opening(self) -> tuple[bytes, ...]:
        """What a stream begins with, chunk by chunk; sent with the first token, not before."""

    def token(self, index: int, fragment: bytes) -> bytes:
        """One token's record; the fragment is escaped for JSON."""

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

    def opening(self) -> tuple[bytes, ...]:
        """Nothing."""
        return ()

    def closing(self, result: Result) -> tuple[bytes, ...]:
        """The line with done:true."""
        return (encode(self._record("", result)) + b"\n",)

    def whole(self, result: Result) -> bytes:
        """One object, without a newline."""
        return encode(self._record(result.text, result))

    def broken(self) -> bytes:
        """The error line."""
        return encode({"error": RUNNER_DIED}) + b"\n"

    def only_loaded(self, reason: str) -> bytes:
        """Without measurements (ollama-api.md §3.3)."""
        return encode(self._head("") | {"done": True, "done_reason": reason})

    def _head(self, text: str, calls: tuple[Call, ...] = ()) -> dict[str, object]:
        return {"model": self._model, "created_at": now(), "response": text}

    def _record(self, text: str, result: Result) -> dict[str, object]:
        context = {} if self._context is None else {"context": self._context + list(range(result.count))}
        return self._head(text, result.calls) | {"done": True, "done_reason": result.reason} | context | result.metrics()


class NativeChat(NativeGenerate):
    """/api/chat."""

    def __init__(self, model: str) -> None:
        super().__init__(model, "", raw=True)

    def token(self, index: int, fragment: bytes) -> bytes:
        """One line."""
        stamp = now().encode("ascii")
        form = b'%b%b","message":{"role":"assistant","content":"%b"},"done":false}\n'
        return form % (self._prefix, stamp, fragment)

    def _head(self, text: str, calls: tuple[Call, ...] = ()) -> dict[str, object]:
        """All tool calls are in the record they are given to: the final one, as models with a template of their own have it."""
        message = {"role": "assistant", "content": text} | ({"tool_calls": [call.native for call in calls]} if calls else {})
        return {"model": self._model, "created_at": now(), "message": message}


class OpenAIChat:
    """/v1/chat/completions."""

    stream_type = "text/event-stream"
    stream_headers = b""
    whole_type = "application/json"
    garbage = b"data: this event is no JSON\n\n"
    _id_prefix = "chatcmpl"

    def __init__(self, model: str, prompt: str, include_usage: bool) -> None:
        self._model = model
        self._include_usage = include_usage
        self._id = f"{self._id_prefix}-{crc32(prompt.encode('utf-8', 'replace')) % 999}"
        self._created = int(time.time())
        self._open, self._close = self._ends(model)

    def token(self, index: int, fragment: bytes) -> bytes:
        """One event; the first one names the role."""
        role = b"" if index else b'"role":"assistant",'
        return b'%b{%b"content":"%b"},"finish_reason":null%b\n\n' % (self._open, role, fragment, self._close)

    def opening(self) -> tuple[bytes, ...]:
        """Nothing."""
        return ()

    def closing(self, result: Result) -> tuple[bytes, ...]:
        """Tool calls whole, each in a delta of its own; then finish, usage if it was asked for, and [DONE], in one chunk as recorded."""
        calls = [self._event([{"index": 0, "delta": {"role": "assistant", "content": "", "tool_calls": [call.openai]}, "finish_reason": None}], {})
                 for call in result.calls]
        events = [self._finish(result)]
        if self._include_usage:
            events.append(self._event([], {"usage": result.usage()}))
        return (*calls, b"".join(events) + b"data: [DONE]\n\n")

    def whole(self, result: Result) -> bytes:
        """One object and a newline."""
        return encode({
            "id": self._id, "object": "chat.completion", "created": self._created, "model": self._model,
            "system_fingerprint": "fp_ollama", "choices": [self._choice(result)], "usage": result.usage(),
        }) + b"\n"

    def broken(self) -> bytes:
        """One odd chunk; then the stream will end without [DONE]."""
        return self.token(1, b"").replace(b'"model":%b' % encode(self._model), b'"model":""', 1)

    def only_loaded(self, reason: str) -> bytes:
        """A whole answer without text."""
        return self.whole(Result("", reason, 0, 0, 0, 0, 0, 0))

    def _ends(self, model: str) -> tuple[bytes, bytes]:
        head = encode({
            "id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": model,
            "system_fingerprint": "fp_ollama",
        })
        return b'data: %b,"choices":[{"index":0,"delta":' % head[:-1], b"}]}"

    def _choice(self, result: Result) -> dict[str, object]:
        message = {"role": "assistant", "content": result.text}
        if result.calls:
            message["tool_calls"] = [call.openai for call in result.calls]
        return {"index": 0, "message": message, "finish_reason": self._reason(result)}

    @staticmethod
    def _reason(result: Result) -> str:
        return "tool_calls" if result.calls else result.reason

    def _finish(self, result: Result) -> bytes:
        return self._event([{"index": 0, "delta": {}, "finish_reason": self._reason(result)}], {})

    def _event(self, choices: list[object], rest: dict[str, object]) -> bytes:
        return b"data: %b\n\n" % encode({
            "id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model,
            "system_fingerprint": "fp_ollama", "choices": choices,
        } | rest)


class OpenAICompletion(OpenAIChat):
    """/v1/completions."""

    _id_prefix = "cmpl"

    def token(self, index: int, fragment: bytes) -> bytes:
        """One event."""
        return b'%b"%b","index":0,"finish_reason":null%b\n\n' % (self._open, fragment, self._close)

    def closing(self, result: Result) -> tuple[bytes, ...]:
        """Text and finish share the last event; [DONE] is in the same chunk."""
        last = self.token(1, b"").replace(b"null", encode(result.reason), 1)
        if self._include_usage:
            last += self._event([], {"usage": result.usage()})
        return (last + b"data: [DONE]\n\n",)

    def whole(self, result: Result) -> bytes:
        """One object and a newline."""
        return encode({
            "id": self._id, "object": "text_completion", "created": self._created, "model": self._model,
            "system_fingerprint": "fp_ollama", "choices": [self._choice(result)], "usage": result.usage(),
        }) + b"\n"

    def _ends(self, model: str) -> tuple[bytes, bytes]:
        head = encode({"id": self._id, "object": "text_completion", "created": self._created})
        tail = {"model": model, "system_fingerprint": "fp_ollama"}
        usage = {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}
        encoded = encode(tail | usage if self._include_usage else tail)
        return b'data: %b,"choices":[{"text":' % head[:-1], b"}],%b" % encoded[1:]

    def _choice(self, result: Result) -> dict[str, object]:
        return {"text": result.text, "index": 0, "finish_reason": result.reason}

    def _event(self, choices: list[object], rest: dict[str, object]) -> bytes:
        return b"data: %b\n\n" % encode({
            "id": self._id, "object": "text_completion", "created": self._created, "choices": choices,
            "model": self._model, "system_fingerprint": "fp_ollama",
        } | rest)
