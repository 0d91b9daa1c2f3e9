"""What a request may ask of an answer beside its length: tool calls, JSON, thinking or none. Pure.

The stand-in understands nothing, so a prompt says what it wants: `@@tool@@` calls the first tool of the request.
"""

from typing import Any
from zlib import crc32

from hermes.simulator.faults import tools_wanted
from hermes.simulator.shapes import Call
from hermes.simulator.text import encode

_EXAMPLES: dict[str, object] = {
    "string": "Paris", "integer": 7, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None,
}


def calls(prompt: str, tools: object) -> tuple[Call, ...]:
    """Calls of the first tools, given in OpenAI's and Ollama's form or in Anthropic's, as many as the prompt asks for."""
    wanted = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return tuple(_call(index, tool.get("function", tool)) for index, tool in enumerate(wanted[:tools_wanted(prompt)]))


def _call(index: int, tool: dict[str, Any]) -> Call:
    schema = tool.get("parameters") or tool.get("input_schema") or {}
    number = crc32(encode([index, tool])) % 16**8
    return Call(f"call_{number:08x}", str(tool.get("name")), example({"type": "object"} | schema), index)


def example(schema: dict[str, Any]) -> Any:
    """A value that a simple schema allows."""
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if schema.get("type") == "object" or "properties" in schema:
        return {name: example(inner) for name, inner in schema.get("properties", {}).items()}
    if schema.get("type") == "array" and schema.get("minItems"):
        return [example(schema.get("items", {}))] * schema["minItems"]
    return _EXAMPLES.get(str(schema.get("type")), "Paris")


def json_words(wanted: object) -> tuple[str, ...] | None:
    """JSON as `format` wants it ("json", or a schema), cut into tokens; None if it wants none."""
    if not wanted:
        return None
    text = encode(example(wanted) if isinstance(wanted, dict) else {"answer": "Paris"}).decode("utf-8")
    return tuple(text[at:at + 4] for at in range(0, len(text), 4))


def thinks(fields: dict[str, Any]) -> bool:
    """Whether a request lets a model think that can: on every surface unless it says no (ollama-api.md §0.17)."""
    reasoning, thinking = fields.get("reasoning"), fields.get("thinking")
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else fields.get("reasoning_effort")
    disabled = isinstance(thinking, dict) and thinking.get("type") == "disabled"
    return fields.get("think") is not False and effort != "none" and not disabled
