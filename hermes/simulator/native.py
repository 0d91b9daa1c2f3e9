"""Ollama's own endpoints that run a model (ollama-api.md §1.3 to §1.6).

Each runs in the handler thread of its request.
"""

import time
from typing import Any

from hermes.simulator.exchange import ApiError, Exchange
from hermes.simulator.images import check_images
from hermes.simulator.inference import Ask, generate, load_only, refusals, want
from hermes.simulator.models import SimModel, canonical
from hermes.simulator.reading import DecodeError, read_keep_alive
from hermes.simulator.runner import Want
from hermes.simulator.shapes import NativeChat, NativeGenerate
from hermes.simulator.text import encode, normalise, vector
from hermes.simulator.wishes import calls, json_words, thinks

NOT_EMBEDDING = "This server does not support embeddings. Start it with `--embeddings`"
_COMMON = {"model": "string", "stream": "bool", "options": "map[string]interface {}"}
_THINK_LEVELS = (None, False, True, "low", "medium", "high", "max")


def generate_text(x: Exchange) -> None:
    """POST /api/generate."""
    fields = x.fields("api.GenerateRequest", _COMMON | {"prompt": "string", "suffix": "string", "raw": "bool"})
    keep_alive = _keep_alive(fields)
    sent, prompt = fields.get("model", ""), fields.get("prompt", "")
    if not sent:
        raise ApiError(404, "model '' not found")
    check_images(x, fields)
    shape = NativeGenerate(sent, prompt, fields.get("raw", False))
    name, model = x.installed(sent, "model '%s' not found")
    if not prompt and keep_alive == 0:
        return _unload(x, shape, model)
    _check_abilities(model, sent, fields, "generate")
    if fields.get("suffix") and "insert" not in model.capabilities:
        raise ApiError(400, f"{name.full} does not support insert")
    needed = want(x, name, model, fields.get("options", {}), keep_alive)
    _run(x, shape, needed, fields) if prompt else load_only(x, shape, needed)


def chat(x: Exchange) -> None:
    """POST /api/chat."""
    fields = x.fields("api.ChatRequest", _COMMON | {"messages": "[]api.Message"})
    keep_alive = _keep_alive(fields)
    sent, messages = fields.get("model", ""), fields.get("messages", [])
    if not sent:
        raise ApiError(400, "model is required")
    check_images(x, fields)
    shape = NativeChat(sent)
    name, model = x.installed(sent, "model '%s' not found")
    if not messages and keep_alive == 0:
        return _unload(x, shape, model)
    _check_abilities(model, sent, fields, "chat")
    if fields.get("tools") and "tools" not in model.capabilities:
        raise ApiError(400, f"{name.full} does not support tools")
    needed = want(x, name, model, fields.get("options", {}), keep_alive)
    _run(x, shape, needed, fields) if messages else load_only(x, shape, needed)


def _run(x: Exchange, shape: NativeGenerate, needed: Want, fields: dict[str, Any]) -> None:
    stream = fields.get("stream", True)
    _check_format(fields.get("format"), stream)
    limit = int(fields.get("options", {}).get("num_predict") or 0)
    made = calls(x.record.prompt, fields.get("tools"))
    words = None if made else json_words(fields.get("format"))
    generate(x, shape, Ask(needed, x.record.prompt, stream, limit, words, made, thinks(fields)))


def _unload(x: Exchange, shape: NativeGenerate, model: SimModel) -> None:
    """At once, also when the model is not loaded or still busy (ollama-api.md §3.3)."""
    x.house.scheduler.unload(canonical(model.name))
    x.wire.answer(200, shape.whole_type, shape.only_loaded("unload"))


def _check_abilities(model: SimModel, sent: str, fields: dict[str, Any], verb: str) -> None:
    if model.embeds_only:
        raise ApiError(400, f'"{sent}" does not support {verb}')
    think = fields.get("think")
    if think not in _THINK_LEVELS:
        raise ApiError(400, 'invalid think value: must be true, false, "low", "medium", "high" or "max"', direct=True)
    if think and "thinking" not in model.capabilities:
        raise ApiError(400, f'"{sent}" does not support thinking')


def _check_format(wanted: object, stream: bool) -> None:
    if wanted not in (None, "", "json") and not isinstance(wanted, dict):
        raw = encode(encode(wanted).decode("utf-8")).decode("utf-8")
        raise ApiError(500, f'invalid format: {raw}; expected "json" or a valid JSON Schema object', late=stream)


def _keep_alive(fields: dict[str, Any]) -> float | None:
    try:
        return read_keep_alive(fields.get("keep_alive"))
    except DecodeError as error:
        raise ApiError(400, str(error), direct=True) from None


def embed(x: Exchange) -> None:
    """POST /api/embed."""
    types = {"model": "string", "options": "map[string]interface {}", "dimensions": "int"}
    fields = x.fields("api.EmbedRequest", types)
    sent = fields.get("model", "")
    if not sent:
        raise ApiError(404, "model '' not found")
    given = fields.get("input", [])
    inputs = [given] if isinstance(given, str) and given else given or []
    if not isinstance(inputs, list) or not all(isinstance(each, str) for each in inputs):
        raise ApiError(400, "invalid input type")
    record = {"model": sent, "embeddings": vectors(x, sent, inputs, fields)}
    if inputs:
        total = max(1, int((time.monotonic() - x.record.arrived) * 1_000_000_000))
        record |= {"total_duration": total, "load_duration": total, "prompt_eval_count": count_tokens(inputs)}
    x.json(record)


def embed_one(x: Exchange) -> None:
    """POST /api/embeddings, the old one."""
    fields = x.fields("api.EmbeddingRequest", {"model": "string", "prompt": "string"})
    sent, prompt = fields.get("model", ""), fields.get("prompt", "")
    if not sent:
        raise ApiError(400, "model is required")
    found = vectors(x, sent, [prompt] if prompt else [], fields)
    x.json({"embedding": found[0] if found else []})


def vectors(x: Exchange, sent: str, inputs: list[str], fields: dict[str, Any]) -> list[list[float]]:
    """One vector an input, from a slot of the model."""
    name, model = x.installed(sent, 'model "%s" not found, try pulling it first')
    needed = want(x, name, model, fields.get("options", {}), _keep_alive(fields))
    with refusals(), x.house.scheduler.lease(x.client, needed, x.entered):
        if not inputs:
            return []
        x.client.pause(x.pace.prompt_time)
    if "embedding" not in model.capabilities:
        raise ApiError(501, NOT_EMBEDDING)
    found = [vector(each, model.embedding) for each in inputs]
    size = fields.get("dimensions", 0)
    return [normalise(each[:size]) for each in found] if 0 < size < model.embedding else found


def count_tokens(inputs: list[str]) -> int:
    """What a batch of inputs counts for."""
    return sum(3 + len(each) // 5 for each in inputs)
