"""OpenAI's Responses as Ollama has it: stateless (ollama-api.md §1.14). Runs in the handler thread of its request."""

import json
import time
from typing import Any
from zlib import crc32

from hermes.simulator.exchange import ApiError, Exchange
from hermes.simulator.images import check_images
from hermes.simulator.inference import Ask, generate, want
from hermes.simulator.shapes import Call, Result
from hermes.simulator.text import encode
from hermes.simulator.wire import EVENTS
from hermes.simulator.wishes import calls, json_words, thinks

_TYPES = {"model": "string", "stream": "bool", "max_output_tokens": "int"}
_ITEMS = ("message", "function_call", "function_call_output", "reasoning", "web_search_call")


def responses(x: Exchange) -> None:
    """POST /v1/responses."""
    fields = x.fields("openai.ResponsesRequest", _TYPES)
    sent, given = fields.get("model", ""), fields.get("input")
    for item in given if isinstance(given, list) else ():
        if isinstance(item, dict) and item.get("type", "message") not in _ITEMS:
            raise ApiError(400, f"unknown input item type: {item['type']}", direct=True)
    check_images(x, fields)
    if not sent:
        raise ApiError(400, "model is required")
    name, model = x.installed(sent, "model '%s' not found")
    if model.embeds_only:
        raise ApiError(400, f'"{sent}" does not support chat')
    if fields.get("tools") and "tools" not in model.capabilities:
        raise ApiError(400, f"{name.full} does not support tools")
    prompt, stream, limit = x.record.prompt, fields.get("stream", False), fields.get("max_output_tokens", 0)
    made = calls(prompt, fields.get("tools"))
    words = None if made else json_words(_schema(fields.get("text")))
    needed = want(x, name, model, {}, None)
    generate(x, Responses(sent, prompt, fields), Ask(needed, prompt, stream, limit, words, made, thinks(fields)))


def _schema(text: object) -> object:
    """Ollama's `format` for a `text`."""
    form = text.get("format") if isinstance(text, dict) else None
    return form.get("schema") if isinstance(form, dict) else None


class Responses:
    """/v1/responses. Streamed objects have their keys in alphabetical order, whole ones do not; both as recorded.

    Thinking, text and each function call are items, one after the other; `_items` holds those that are finished.
    """

    stream_type = "text/event-stream"
    stream_headers = EVENTS
    whole_type = "application/json"
    garbage = b"data: this event is no JSON\n\n"

    def __init__(self, model: str, prompt: str, fields: dict[str, Any]) -> None:
        self._model = model
        self._fields = fields
        self._id = crc32(prompt.encode("utf-8", "replace")) % 1_000_000
        self._created = int(time.time())
        self._events = 0
        self._part = ""
        self._said: list[bytes] = []
        self._items: list[dict[str, Any]] = []

    def opening(self) -> tuple[bytes, ...]:
        """The response, twice."""
        begun = self._response("in_progress", [], None)
        return self._event("response.created", response=begun), self._event("response.in_progress", response=begun)

    def turn(self, part: str) -> tuple[bytes, ...]:
        """The end of the item before, the start of the next."""
        ended = self._end()
        self._part, self._said = part, []
        if part == "thinking":
            return *ended, self._added(self._reasoning("") | {"summary": []})
        added = self._added(self._message("") | {"status": "in_progress", "content": []})
        return *ended, added, self._event("response.content_part.added", **self._where(), part=_part(""))

    def thought(self, index: int, fragment: bytes) -> bytes:
        """One delta."""
        self._said.append(fragment)
        where = {"item_id": f"rs_{self._id}", "output_index": len(self._items), "summary_index": 0}
        return self._event("response.reasoning_summary_text.delta", **where, delta="%b").replace(b"%b", fragment, 1)

    def token(self, index: int, fragment: bytes) -> bytes:
        """One delta."""
        self._said.append(fragment)
        return self._event("response.output_text.delta", **self._where(), delta="%b", logprobs=[]).replace(b"%b", fragment, 1)

    def closing(self, result: Result) -> tuple[bytes, ...]:
        """The end of the last item, an item for each function call, and the whole response."""
        events = [*self._end()]
        for call in result.calls:
            item = _call(call)
            where = {"item_id": item["id"], "output_index": len(self._items)}
            events += [self._added(item | {"status": "in_progress", "arguments": ""}),
                       self._event("response.function_call_arguments.delta", **where, delta=item["arguments"]),
                       self._event("response.function_call_arguments.done", **where, arguments=item["arguments"]),
                       self._done(item)]
        response = self._response("completed", self._items, _usage(result))
        return *events, self._event("response.completed", response=response)

    def whole(self, result: Result) -> bytes:
        """One object and a newline."""
        thinking = [self._reasoning(result.thinking)] if result.thinking else []
        text = [self._message(result.text)] if result.text or not result.calls else []
        output = [*thinking, *text, *map(_call, result.calls)]
        return encode(self._response("completed", output, _usage(result))) + b"\n"

    def broken(self) -> bytes:
        """Nothing at all (ollama-api.md §2.3)."""
        return b""

    def only_loaded(self, reason: str) -> bytes:
        """There is no load request here."""
        raise AssertionError(reason)

    def _end(self) -> tuple[bytes, ...]:
        """The end of the item that is open, if one is."""
        part, self._part = self._part, ""
        if not part:
            return ()
        text = json.loads(b'"%b"' % b"".join(self._said))
        if part == "thinking":
            where = {"item_id": f"rs_{self._id}", "output_index": len(self._items), "summary_index": 0}
            return (self._event("response.reasoning_summary_text.done", **where, text=text), self._done(self._reasoning(text)))
        return (self._event("response.output_text.done", **self._where(), text=text, logprobs=[]),
                self._event("response.content_part.done", **self._where(), part=_part(text)), self._done(self._message(text)))

    def _added(self, item: dict[str, Any]) -> bytes:
        return self._event("response.output_item.added", output_index=len(self._items), item=item)

    def _done(self, item: dict[str, Any]) -> bytes:
        event = self._event("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)
        return event

    def _where(self) -> dict[str, object]:
        return {"item_id": f"msg_{self._id}", "output_index": len(self._items), "content_index": 0}

    def _response(self, status: str, output: list[dict[str, Any]], usage: object) -> dict[str, object]:
        asked = self._fields
        return {
            "id": f"resp_{self._id}", "object": "response", "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None, "status": status,
            "incomplete_details": None, "model": self._model, "previous_response_id": None,
            "instructions": asked.get("instructions"), "output": output, "error": None, "tools": asked.get("tools", []),
            "tool_choice": "auto", "truncation": asked.get("truncation", "disabled"), "parallel_tool_calls": True,
            "text": asked.get("text", {"format": {"type": "text"}}), "top_p": asked.get("top_p", 1), "presence_penalty": 0,
            "frequency_penalty": 0, "top_logprobs": 0, "temperature": asked.get("temperature", 1), "reasoning": None,
            "usage": usage, "max_output_tokens": asked.get("max_output_tokens"), "max_tool_calls": None, "store": False,
            "background": False, "service_tier": "default", "metadata": {}, "safety_identifier": None, "prompt_cache_key": None,
        }

    def _reasoning(self, text: str) -> dict[str, Any]:
        return {"id": f"rs_{self._id}", "type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}

    def _message(self, text: str) -> dict[str, Any]:
        return {"id": f"msg_{self._id}", "type": "message", "status": "completed", "role": "assistant", "content": [_part(text)]}

    def _event(self, kind: str, **fields: object) -> bytes:
        data = _sorted(fields | {"sequence_number": self._events, "type": kind})
        self._events += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode("ascii"), encode(data))


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _call(call: Call) -> dict[str, Any]:
    return {"id": f"fc_{call.id}", "type": "function_call", "status": "completed", "call_id": call.id, "name": call.name,
            "arguments": encode(call.arguments).decode("utf-8")}


def _usage(result: Result) -> dict[str, object]:
    return {"input_tokens": result.prompt_count, "output_tokens": result.generated,
            "total_tokens": result.prompt_count + result.generated,
            "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}


def _sorted(value: object) -> object:
    """Go writes maps with their keys in order."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
