"""OpenAI's endpoints as Ollama has them (ollama-api.md §1.9 to §1.12).

Each runs in the handler thread of its request.
"""

import base64
import struct
from typing import Any

from hermes.simulator.completions import OpenAIChat, OpenAICompletion
from hermes.simulator.exchange import ApiError, Exchange
from hermes.simulator.images import check_images
from hermes.simulator.inference import Ask, generate, load_only, want
from hermes.simulator.native import count_tokens, vectors
from hermes.simulator.wishes import calls, json_words, thinks

_COMMON = {"model": "string", "stream": "bool", "max_tokens": "int"}
_NOT_FOUND = "model '%s' not found"
_EFFORTS = (None, "none", "minimal", "low", "medium", "high", "max", "xhigh", "ultra")
_EFFORT_RULE = 'must be "high", "medium", "low", "max", or "none"'
_FORMAT_RULE = "Invalid value for 'encoding_format' = %s. Supported values: ['float', 'base64']."


def chat(x: Exchange) -> None:
    """POST /v1/chat/completions."""
    fields = x.fields("openai.ChatCompletionRequest", _COMMON | {"messages": "[]openai.Message"})
    sent = fields.get("model", "")
    if not fields.get("messages"):
        raise ApiError(400, "[] is too short - 'messages'", direct=True)
    check_images(x, fields)
    if not sent:
        raise ApiError(400, "model is required")
    name, model = x.installed(sent, _NOT_FOUND)
    if model.embeds_only:
        raise ApiError(400, f'"{sent}" does not support chat')
    if fields.get("tools") and "tools" not in model.capabilities:
        raise ApiError(400, f"{name.full} does not support tools")
    effort = fields.get("reasoning_effort")
    if effort not in _EFFORTS:
        raise ApiError(400, f"invalid reasoning value: '{effort}' ({_EFFORT_RULE})")
    if effort not in (None, "none") and "thinking" not in model.capabilities:
        raise ApiError(400, f'"{sent}" does not support thinking')
    shape = OpenAIChat(sent, x.record.prompt, _include_usage(fields))
    needed = want(x, name, model, {}, None)
    made = calls(x.record.prompt, fields.get("tools"))
    words = None if made else json_words(_format(fields.get("response_format")))
    stream, limit = fields.get("stream", False), fields.get("max_tokens", 0)
    generate(x, shape, Ask(needed, x.record.prompt, stream, limit, words, made, thinks(fields)))


def _format(given: object) -> object:
    """Ollama's `format` for a response_format."""
    if not isinstance(given, dict) or given.get("type") == "text":
        return None
    schema = given.get("json_schema")
    return schema.get("schema") if isinstance(schema, dict) else "json"


def complete(x: Exchange) -> None:
    """POST /v1/completions."""
    fields = x.fields("openai.CompletionRequest", _COMMON | {"prompt": "string"})
    sent, prompt = fields.get("model", ""), fields.get("prompt", "")
    if not sent:
        raise ApiError(404, "model '' not found")
    name, model = x.installed(sent, _NOT_FOUND)
    if model.embeds_only:
        raise ApiError(400, f'"{sent}" does not support generate')
    shape = OpenAICompletion(sent, prompt, _include_usage(fields))
    needed = want(x, name, model, {}, None)
    if not prompt:
        return load_only(x, shape, needed)
    stream, limit = fields.get("stream", False), fields.get("max_tokens", 0)
    generate(x, shape, Ask(needed, prompt, stream, limit, thinks=True))


def _include_usage(fields: dict[str, Any]) -> bool:
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def embed(x: Exchange) -> None:
    """POST /v1/embeddings."""
    fields = x.fields("openai.EmbedRequest", {"model": "string", "dimensions": "int", "encoding_format": "string"})
    given = fields.get("input")
    if given is None or given == []:
        raise ApiError(400, "invalid input", direct=True)
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not all(isinstance(each, str) for each in inputs):
        raise ApiError(400, "invalid input type")
    form = fields.get("encoding_format", "float")
    if form not in ("float", "base64"):
        raise ApiError(400, _FORMAT_RULE % form, direct=True)
    sent = fields.get("model", "")
    if not sent:
        raise ApiError(404, "model '' not found")
    found = vectors(x, sent, inputs, {name: fields[name] for name in ("dimensions",) if name in fields})
    count = count_tokens(inputs)
    x.json({
        "object": "list",
        "data": [_embedding(index, values, form) for index, values in enumerate(found)],
        "model": sent,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    })


def _embedding(index: int, values: list[float], form: str) -> dict[str, object]:
    packed = values if form == "float" else base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode("ascii")
    return {"object": "embedding", "embedding": packed, "index": index}
