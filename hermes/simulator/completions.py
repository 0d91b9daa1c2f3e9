"""What the records of OpenAI's chats and completions look like, streaming and whole (ollama-api.md §1.9, §1.10)."""

import time
from zlib import crc32

from hermes.simulator.shapes import Result
from hermes.simulator.text import encode


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

    def thought(self, index: int, fragment: bytes) -> bytes:
        """One event with both fields, the usual one empty."""
        role = b"" if index else b'"role":"assistant",'
        form = b'%b{%b"content":"","reasoning":"%b"},"finish_reason":null%b\n\n'
        return form % (self._open, role, fragment, self._close)

    def opening(self) -> tuple[bytes, ...]:
        """Nothing."""
        return ()

    def turn(self, part: str) -> tuple[bytes, ...]:
        """Nothing."""
        return ()

    def closing(self, result: Result) -> tuple[bytes, ...]:
        """Tool calls whole, each in a delta of its own; then finish, usage if asked for, and [DONE], in one chunk as recorded.

        The first delta of an answer names the role, whatever it brings; so a wholly empty one has an empty one.
        """
        deltas = [{"content": "", "tool_calls": [call.openai]} for call in result.calls]
        if not result.count:
            deltas[:1] = [{"role": "assistant"} | (deltas[0] if deltas else {"content": ""})]
        chunks = [self._event([{"index": 0, "delta": delta, "finish_reason": None}], {}) for delta in deltas]
        events = [self._finish(result)]
        if self._include_usage:
            events.append(self._event([], {"usage": result.usage()}))
        return (*chunks, b"".join(events) + b"data: [DONE]\n\n")

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
        return self.whole(Result("", "", reason))

    def _ends(self, model: str) -> tuple[bytes, bytes]:
        head = encode({
            "id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": model,
            "system_fingerprint": "fp_ollama",
        })
        return b'data: %b,"choices":[{"index":0,"delta":' % head[:-1], b"}]}"

    def _choice(self, result: Result) -> dict[str, object]:
        message: dict[str, object] = {"role": "assistant", "content": result.text}
        if result.thinking:
            message["reasoning"] = result.thinking
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

    def thought(self, index: int, fragment: bytes) -> bytes:
        """An event without text, for there is no field for thoughts."""
        return self.token(index, b"")

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
