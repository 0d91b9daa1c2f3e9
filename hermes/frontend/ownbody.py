"""The request of Hermes's own routes: its fields, checked, and what Ollama is asked for them. Pure."""

import difflib
import json
from collections.abc import Iterator

from hermes.errors import BadRequest
from hermes.frontend.jsonbody import Edit, Member, Members, Pieces, read_members, splice
from hermes.frontend.jsonscan import Scanner, Span
from hermes.workers.messages import Bytes

KINDS = {"prompt": (str, "a string"), "messages": (list, "an array"), "system": (str, "a string"), "images": (list, "an array"),
          "tools": (list, "an array"), "format": ((str, dict), "a string or an object"), "think": ((bool, str), "a boolean or a string"),
          "options": (dict, "an object"), "keep_alive": ((str, int, float), "a string or a number"), "stream": (bool, "a boolean")}
_TYPES = {"string": str, "array": list, "object": dict, "bool": bool, "number": float}


def read_request(body: Bytes) -> Members:
    """The fields that are not null, each of the right type. Raises BadRequest, BodyTooLarge."""
    asked = read_members(body)
    for key, member in list(asked.items()):
        if member.kind == "null":
            del asked[key]
            continue
        kinds, wanted = KINDS.get(key, (None, ""))
        if kinds is None:
            near = difflib.get_close_matches(key[:64], KINDS, 1)
            raise BadRequest(f"unknown field '{key[:64]}'" + (f" (did you mean '{near[0]}'?)" if near else f"; known: {', '.join(KINDS)}"))
        if _TYPES[member.kind] not in (kinds if isinstance(kinds, tuple) else (kinds,)):
            raise BadRequest(f"'{key}' must be {wanted}")
    if ("prompt" in asked) == ("messages" in asked):
        raise BadRequest("give either 'prompt' or 'messages'")
    if "tools" in asked and "prompt" in asked:
        raise BadRequest("'tools' needs 'messages'")
    if not all(message.kind == "object" for message in _elements(asked, "messages")):
        raise BadRequest("each of 'messages' must be an object")
    if not all(image.kind == "string" for image in _elements(asked, "images")):
        raise BadRequest("each of 'images' must be a string (base64)")
    return asked


def _elements(asked: Members, key: str) -> Iterator[Span]:
    return Scanner(asked.body).elements(asked[key].start) if key in asked else iter(())


def to_native(asked: Members, model: str) -> tuple[str, Pieces]:
    """Ollama's path and body for a request of ours (ollama-api.md §1.3, §1.4). The client's values go as he wrote them, uncopied."""
    chat = "messages" in asked
    kept = ("format", "think", "options", "keep_alive", *(("tools",) if chat else ("prompt", "system", "images")))
    pieces: list[Bytes] = [json.dumps({"model": model, "stream": True})[:-1].encode()]
    for key in kept:
        if key in asked:
            pieces += [f',"{key}":'.encode(), _text(asked, key)]
    if chat:
        pieces += [b',"messages":', *_messages(asked)]
    return "/api/chat" if chat else "/api/generate", (*pieces, b"}")


def _text(asked: Members, key: str) -> memoryview:
    member = asked[key]
    return memoryview(member.body)[member.start:member.end]


def _messages(asked: Members) -> Pieces:
    """The messages, with `system` in front of them and `images` in the last."""
    messages = _text(asked, "messages")
    last, edits = None, []
    for last in Scanner(messages).elements(0):
        pass
    if "images" in asked:
        if last is None:
            raise BadRequest("'images' needs a message to go with")
        edits += _illustrate(messages, last, asked["images"])
    if "system" in asked:
        edits += [Edit(1, 1, b'{"role":"system","content":'), Edit(1, 1, _text(asked, "system")), Edit(1, 1, b"}," if last else b"}")]
    return splice(messages, edits)


def _illustrate(messages: memoryview, last: Span, images: Member) -> list[Edit]:
    """`images`, an array, added to those of the message `last`."""
    message, text = read_members(messages[last.start:last.end]), memoryview(images.body)[images.start:images.end]
    own = message.get("images")
    if own is None:
        at = last.start + 1
        return [Edit(at, at, b'"images":'), Edit(at, at, text), Edit(at, at, b"," if message else b"")]
    if own.kind != "array":
        raise BadRequest("the 'images' of a message must be an array")
    if images.empty:
        return []
    at = last.start + own.end - 1
    return [Edit(at, at, b"" if own.empty else b","), Edit(at, at, text[1:-1])]
