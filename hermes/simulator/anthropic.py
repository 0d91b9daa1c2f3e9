"""Anthropic's endpoint as Ollama has it (ollama-api.md §1.16). Runs in the handler thread of its request."""

from typing import Any
from zlib import crc32

from hermes.simulator.exchange import ApiError, Exchange
from hermes.simulator.images import check_images
from hermes.simulator.inference import Ask, generate, want
from hermes.simulator.shapes import Result
from hermes.simulator.text import encode
from hermes.simulator.wire import EVENTS
from hermes.simulator.wishes import calls, thinks

_TYPES = {"model": "string", "stream": "bool", "max_tokens": "int", "messages": "[]anthropic.MessageParam"}
_BYTES_PER_TOKEN = 4


def messages(x: Exchange) -> None:
    """POST /v1/messages."""
    fields = x.fields("anthropic.MessagesRequest", _TYPES)
    sent, limit = fields.get("model", ""), fields.get("max_tokens", 0)
    if not sent:
        raise ApiError(400, "model is required", direct=True)
    if limit <= 0:
        raise ApiError(400, "max_tokens is required and must be positive", direct=True)
    if not fields.get("messages"):
        raise ApiError(400, "messages is required", direct=True)
    check_images(x, fields)
    name, model = x.installed(sent, "model '%s' not found")
    if model.embeds_only:
        raise ApiError(400, f'"{sent}" does not support chat')
    if fields.get("tools") and "tools" not in model.capabilities:
        raise ApiError(400, f"{name.full} does not support tools")
    prompt, stream = x.record.prompt, fields.get("stream", False)
    needed = want(x, name, model, {}, None)
    made = calls(prompt, fields.get("tools"))
    generate(x, Messages(sent, fields), Ask(needed, prompt, stream, limit, calls=made, thinks=thinks(fields)))


class Messages:
    """/v1/messages. Each event is a chunk of its own, as recorded; thinking, text and each tool call are blocks."""

    stream_type = "text/event-stream"
    stream_headers = EVENTS
    whole_type = "application/json"
    garbage = b"data: this event is no JSON\n\n"

    def __init__(self, model: str, fields: dict[str, Any]) -> None:
        content = encode(fields["messages"])
        self._model = model
        self._id = f"msg_{crc32(content):024x}"
        self._estimate = max(1, _size(fields) // _BYTES_PER_TOKEN)
        self._block = -1  # None yet.

    def opening(self) -> tuple[bytes, ...]:
        """The message, with an estimate of its input."""
        head = {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": [],
                "usage": {"input_tokens": self._estimate, "output_tokens": 0}}
        return (_event("message_start", message=head),)

    def turn(self, part: str) -> tuple[bytes, ...]:
        """The end of the block before, the start of the next."""
        return (*self._stop_any(), self._start({"type": part, part: ""}))

    def thought(self, index: int, fragment: bytes) -> bytes:
        """One delta."""
        return self._delta(b"thinking", fragment)

    def token(self, index: int, fragment: bytes) -> bytes:
        """One delta."""
        return self._delta(b"text", fragment)

    def closing(self, result: Result) -> tuple[bytes, ...]:
        """The end of the last block, a block for each tool call, the reason and the real usage, the end."""
        events = [*self._stop_any()]
        for call in result.calls:
            delta = {"type": "input_json_delta", "partial_json": encode(call.arguments).decode("utf-8")}
            events.append(self._start({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}))
            events += [_event("content_block_delta", index=self._block, delta=delta), self._stop()]
        events.append(_event("message_delta", delta={"stop_reason": _reason(result)}, usage=_usage(result)))
        return (*events, _event("message_stop"))

    def whole(self, result: Result) -> bytes:
        """One object and a newline."""
        parts = (("thinking", result.thinking), ("text", result.text))
        content: list[dict[str, Any]] = [{"type": part, part: text} for part, text in parts if text]
        content += [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in result.calls]
        return encode({"id": self._id, "type": "message", "role": "assistant", "model": self._model,
                       "content": content or None, "stop_reason": _reason(result), "usage": _usage(result)}) + b"\n"

    def broken(self) -> bytes:
        """Nothing at all (ollama-api.md §2.3)."""
        return b""

    def only_loaded(self, reason: str) -> bytes:
        """There is no load request here."""
        raise AssertionError(reason)

    def _start(self, block: dict[str, Any]) -> bytes:
        self._block += 1
        return _event("content_block_start", index=self._block, content_block=block)

    def _delta(self, kind: bytes, fragment: bytes) -> bytes:
        return (b"event: content_block_delta\n"
                b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%b_delta","%b":"%b"}}\n\n'
                % (self._block, kind, kind, fragment))

    def _stop(self) -> bytes:
        return _event("content_block_stop", index=self._block)

    def _stop_any(self) -> tuple[bytes, ...]:
        return () if self._block < 0 else (self._stop(),)


def _size(fields: dict[str, Any]) -> int:
    """Bytes of what was said, by whom, of the system's text and of the tools."""
    said = [fields.get("system", ""), fields.get("tools", "")]
    for message in fields["messages"]:
        said += [message.get("role", ""), message.get("content", "")] if isinstance(message, dict) else []
    return sum(len(each.encode("utf-8", "replace") if isinstance(each, str) else encode(each)) for each in said)


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode("ascii"), encode({"type": kind} | fields))


def _reason(result: Result) -> str:
    return "tool_use" if result.calls else {"length": "max_tokens"}.get(result.reason, "end_turn")


def _usage(result: Result) -> dict[str, int]:
    return {"input_tokens": result.prompt_count, "output_tokens": result.generated}
