"""OpenAI's Responses as Ollama has it: stateless (ollama-api.md §1.14). Runs in the handler thread of its request."""

import time
from typing import Any
from zlib import crc32

from hermes.simulator.exchange import ApiError, Exchange
from hermes.simulator.inference import Ask, generate, want
from hermes.simulator.shapes import Call, Result
from hermes.simulator.text import encode
from hermes.simulator.wishes import calls, json_words


def responses(x: Exchange) -> None:
    """POST /v1/responses."""
    fields = x.fields("openai.ResponsesRequest", {"model": "string", "stream": "bool", "max_output_tokens": "int"})
    sent = fields.get("model", "")
    if not sent:
        raise ApiError(400, "model is required")
    name, model = x.installed(sent, "model '%s' not found")
    if model.embeds_only:
        raise ApiError(400, f'"{sent}" does not support chat')
    if fields.get("tools") and "tools" not in model.capabilities:
        raise ApiError(400, f"{name.full} does not support tools")
    made = calls(x.record.prompt, fields.get("tools"))
    form = fields.get("text")
    schema = form.get("format", {}).get("schema") if isinstance(form, dict) else None
    needed = want(x, name, model, {}, None)
    limit = fields.get("max_output_tokens", 0)
    shape = Responses(sent, x.record.prompt, fields)
    generate(x, shape, Ask(needed, x.record.prompt, fields.get("stream", False), limit, () if made else json_words(schema), made))


class Responses:
    """/v1/responses. Streamed objects have their keys in alphabetical order, whole ones do not; both as recorded."""

    stream_type = "text/event-stream"
    stream_headers = b"Cache-Control: no-cache\r\n"
    whole_type = "application/json"
    garbage = b"data: this event is no JSON\n\n"

    def __init__(self, model: str, prompt: str, fields: dict[str, Any]) -> None:
        number = crc32(prompt.encode("utf-8", "replace")) % 1_000_000
        self._model = model
        self._fields = fields
        self._id, self._item = f"resp_{number}", f"msg_{number}"
        self._created = int(time.time())
        self._number = 0

    def opening(self) -> tuple[bytes, ...]:
        """The response twice, its message, its part."""
        begun = self._response("in_progress", [], None)
        item = {"id": self._item, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        return (self._event("response.created", response=begun), self._event("response.in_progress", response=begun),
                self._event("response.output_item.added", output_index=0, item=item),
                self._event("response.content_part.added", item_id=self._item, output_index=0, content_index=0, part=_part("")))

    def token(self, index: int, fragment: bytes) -> bytes:
        """One delta."""
        event = self._event("response.output_text.delta", item_id=self._item, output_index=0, content_index=0, delta="%b", logprobs=[])
        return event.replace(b"%b", fragment, 1)

    def closing(self, result: Result) -> tuple[bytes, ...]:
        """The end of text, part and message; each function call; the whole response."""
        where = {"item_id": self._item, "output_index": 0, "content_index": 0}
        events = [self._event("response.output_text.done", **where, text=result.text, logprobs=[]),
                  self._event("response.content_part.done", **where, part=_part(result.text)),
                  self._event("response.output_item.done", output_index=0, item=self._message(result.text))]
        for index, call in enumerate(result.calls, 1):
            item = _call(call, "in_progress") | {"arguments": ""}
            done = {"item_id": item["id"], "output_index": index}
            events += [self._event("response.output_item.added", output_index=index, item=item),
                       self._event("response.function_call_arguments.delta", **done, delta=_call(call)["arguments"]),
                       self._event("response.function_call_arguments.done", **done, arguments=_call(call)["arguments"]),
                       self._event("response.output_item.done", output_index=index, item=_call(call))]
        return (*events, self._event("response.completed", response=self._response("completed", self._output(result), _usage(result))))

    def whole(self, result: Result) -> bytes:
        """One object and a newline."""
        asked = self._fields
        return encode({
            "id": self._id, "object": "response", "created_at": self._created, "completed_at": int(time.time()), "status": "completed",
            "incomplete_details": None, "model": self._model, "previous_response_id": None, "instructions": asked.get("instructions"),
            "output": self._output(result, whole=True), "error": None, "tools": asked.get("tools", []), "tool_choice": "auto",
            "truncation": "disabled", "parallel_tool_calls": True, "text": {"format": {"type": "text"}}, "top_p": 1, "presence_penalty": 0,
            "frequency_penalty": 0, "top_logprobs": 0, "temperature": asked.get("temperature", 1), "reasoning": None,
            "usage": _usage(result), "max_output_tokens": asked.get("max_output_tokens"), "max_tool_calls": None, "store": False,
            "background": False, "service_tier": "default", "metadata": {}, "safety_identifier": None, "prompt_cache_key": None,
        }) + b"\n"

    def broken(self) -> bytes:
        """Nothing at all (ollama-api.md §2.3)."""
        return b""

    def only_loaded(self, reason: str) -> bytes:
        """There is no load request here."""
        raise AssertionError(reason)

    def _response(self, status: str, output: list[object], usage: object) -> dict[str, object]:
        asked = self._fields
        return {
            "background": False, "completed_at": int(time.time()) if status == "completed" else None, "created_at": self._created, "error": None,
            "frequency_penalty": 0, "id": self._id, "incomplete_details": None, "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"), "max_tool_calls": None, "metadata": {}, "model": self._model,
            "object": "response", "output": output, "parallel_tool_calls": True, "presence_penalty": 0, "previous_response_id": None,
            "prompt_cache_key": None, "reasoning": None, "safety_identifier": None, "service_tier": "default", "status": status, "store": False,
            "temperature": asked.get("temperature", 1), "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": asked.get("tools", []),
            "top_logprobs": 0, "top_p": 1, "truncation": "disabled", "usage": usage,
        }

    def _output(self, result: Result, whole: bool = False) -> list[object]:
        text = [self._message(result.text, whole)] if result.text or not result.calls else []
        return [*text, *map(_call, result.calls)]

    def _message(self, text: str, whole: bool = False) -> dict[str, object]:
        part = _part(text)
        if whole:
            part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"id": self._item, "type": "message", "status": "completed", "role": "assistant", "content": [part]}

    def _event(self, kind: str, **fields: object) -> bytes:
        data = _sorted(fields | {"sequence_number": self._number, "type": kind})
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode("ascii"), encode(data))


def _part(text: str) -> dict[str, object]:
    return {"annotations": [], "logprobs": [], "text": text, "type": "output_text"}


def _call(call: Call, status: str = "completed") -> dict[str, object]:
    return {"id": f"fc_{call.id}", "type": "function_call", "status": status, "call_id": call.id, "name": call.name,
            "arguments": encode(call.arguments).decode("utf-8")}


def _usage(result: Result) -> dict[str, object]:
    return {"input_tokens": result.prompt_count, "output_tokens": result.count, "total_tokens": result.prompt_count + result.count,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}


def _sorted(value: object) -> object:
    """Go writes maps with their keys in order."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
