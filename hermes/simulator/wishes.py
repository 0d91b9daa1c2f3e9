"""What a request may ask of an answer beside its length: a tool call, JSON, images that can be read. Pure.

The stand-in understands nothing, so a prompt says it in so many words: one that holds "use the tool" calls the first tool of the request.
"""

import base64
import binascii
from typing import Any
from zlib import crc32

from hermes.simulator.exchange import ApiError
from hermes.simulator.shapes import Call
from hermes.simulator.text import encode

MARK = "use the tool"
_EXAMPLES: dict[str, object] = {"string": "Paris", "integer": 7, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}


def calls(prompt: str, tools: object) -> tuple[Call, ...]:
    """The call of the first tool, in OpenAI's and Ollama's form or in Anthropic's, if the prompt asks for it."""
    if MARK not in prompt or not isinstance(tools, list) or not tools or not isinstance(tools[0], dict):
        return ()
    tool = tools[0].get("function", tools[0])
    schema = tool.get("parameters") or tool.get("input_schema") or {}
    number = crc32(encode(tool)) % 36**8
    return (Call(f"call_{number:08x}"[:13], str(tool.get("name")), example(schema)),)


def example(schema: dict[str, Any]) -> Any:
    """A value that a simple schema allows."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object" or "properties" in schema:
        return {name: example(inner) for name, inner in schema.get("properties", {}).items()}
    return _EXAMPLES.get(str(schema.get("type")), "Paris")


def json_words(wanted: object) -> tuple[str, ...] | None:
    """JSON as `format` wants it ("json", or a schema), cut into tokens; None if it wants none."""
    if not wanted:
        return None
    text = encode(example(wanted) if isinstance(wanted, dict) else {"answer": "Paris"}).decode("utf-8")
    return tuple(text[at:at + 4] for at in range(0, len(text), 4))


def check_images(images: object) -> None:
    """Standard base64, each of them; raises what Go's decoder says (ollama-api.md §1.2)."""
    for image in images if isinstance(images, list) else ():
        try:
            base64.b64decode(str(image), validate=True)
        except (binascii.Error, ValueError):
            at = next((at for at, char in enumerate(str(image)) if not (char.isascii() and (char.isalnum() or char in "+/="))), len(str(image)))
            raise ApiError(400, f"illegal base64 data at input byte {at}", direct=True) from None
