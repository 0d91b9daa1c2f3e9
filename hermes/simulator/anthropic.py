"""Anthropic's endpoint as Ollama has it (ollama-api.md §1.16). Runs in the handler thread of its request."""

from typing import Any
from zlib import crc32

from hermes.simulator.exchange import ApiError, Exchange
from hermes.simulator.inference import Ask, generate, want
from hermes.simulator.shapes import Result
from hermes.simulator.text import encode
from hermes.simulator.wishes import calls

_TYPES = {"model": "string", "stream": "bool", "max_tokens": "int", "messages": "[]anthropic.MessageParam"}


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
    name, model = x.installed(sent, "model '%s' not found")
    if model.embeds_only:
        raise ApiError(400, f'"{sent}" does not support chat')
    if fields.get("tools") and "tools" not in model.capabilities:
        raise ApiError(400, f"{name.full} does not support tools")
    made = calls(x.record.prompt, fields.get("tools"))
    shape = Messages(sent, x.record.prompt, len(x.request.body))
    needed = want(x, name, model, {}, None)
    generate(x, shape, Ask(needed, x.record.prompt, fields.get("stream", False), limit, () if made else None, made))


class Messages:
    """/v1/messages. Each event is a chunk of its own, as recorded."""

    stream_type = "text/event-stream"
    stream_headers = b"Cache-Control: no-cache\r\n"
    whole_type = "application/json"
    garbage = b"data: this event is no JSON\n\n"

    def __init__(self, model: str, prompt: str, size: int) -> None:
        self._model = model
        self._id = f"msg_{crc32(prompt.encode('utf-8', 'replace')):024x}"
        self._estimate = max(1, size // 40)

    def opening(self) -> tuple[bytes, ...]:
        """The message with an estimate of its input, and the text block."""
        head = {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": [],
                "usage": {"input_tokens": self._estimate, "output_tokens": 0}}
        return _event("message_start", message=head), _event("content_block_start", index=0, content_block={"type": "text", "text": ""})

    def token(self, index: int, fragment: bytes) -> bytes:
        """One delta."""
        return (b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n'
                % fragment)

    def closing(self, result: Result) -> tuple[bytes, ...]:
        """The end of the text block, a block for each tool call, the reason and the real usage, the end."""
        events = [_event("content_block_stop", index=0)]
        for index, call in enumerate(result.calls, 1):
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": encode(call.arguments).decode("utf-8")}
            events += [_event("content_block_start", index=index, content_block=block), _event("content_block_delta", index=index, delta=delta),
                       _event("content_block_stop", index=index)]
        events.append(_event("message_delta", delta={"stop_reason": _reason(result)}, usage=_usage(result)))
        return (*events, _event("message_stop"))

    def whole(self, result: Result) -> bytes:
        """One object and a newline."""
        content: list[dict[str, Any]] = [{"type": "text", "text": result.text}] if result.text else []
        content += [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in result.calls]
        return encode({"id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": content or None,
                       "stop_reason": _reason(result), "usage": _usage(result)}) + b"\n"

    def broken(self) -> bytes:
        """Nothing at all (ollama-api.md §2.3)."""
        return b""

    def only_loaded(self, reason: str) -> bytes:
        """There is no load request here."""
        raise AssertionError(reason)


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode("ascii"), encode({"type": kind} | fields))


def _reason(result: Result) -> str:
    return "tool_use" if result.calls else {"length": "max_tokens"}.get(result.reason, "end_turn")


def _usage(result: Result) -> dict[str, int]:
    return {"input_tokens": result.prompt_count, "output_tokens": result.count}
