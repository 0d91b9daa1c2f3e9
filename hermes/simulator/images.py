"""The pictures of a request, in every dialect: counted, and their base64 read as Go reads it (ollama-api.md §1.2, §1.9)."""

import re
from collections.abc import Iterator
from typing import Any

from hermes.simulator.exchange import ApiError, Exchange

_STRANGE = re.compile(r"[^A-Za-z0-9+/\r\n]")
_DATA = tuple(f"data:{kind};base64," for kind in ("image/jpeg", "image/jpg", "image/png", "image/webp", ""))
_URL = "image URLs are not currently supported, please use base64 encoded data instead"


def check_images(x: Exchange, fields: dict[str, Any]) -> None:
    """Writes down how many there are. Raises what Ollama says about the first one that it cannot read."""
    found = [*_native(fields), *(image for part in _parts(fields) for image in _in_part(part))]
    for image in found:
        at = corrupt_at(image)
        if at is not None:
            raise ApiError(400, f"illegal base64 data at input byte {at}", direct=True)
    with x.house.ledger.changed:
        x.record.images = len(found)


def corrupt_at(text: str) -> int | None:
    """Where Go's decoder of standard base64 gives up; None if it reads all of it. It skips line ends."""
    strange = _STRANGE.search(text)
    end = strange.start() if strange else len(text)
    read = (end - text.count("\r", 0, end) - text.count("\n", 0, end)) % 4  # How far it is in a group of four.
    if strange is None:
        return end - read if read else None
    if strange[0] != "=" or read < 2:
        return end
    after = _skip(text, end + 1)
    if read == 2:
        if after == len(text):
            return after
        if text[after] != "=":
            return after - 1
        after = _skip(text, after + 1)
    return None if after == len(text) else after


def _skip(text: str, at: int) -> int:
    """The next place that is no line end."""
    while at < len(text) and text[at] in "\r\n":
        at += 1
    return at


def _native(fields: dict[str, Any]) -> Iterator[str]:
    messages = fields.get("messages")
    for holder in (fields, *(messages if isinstance(messages, list) else ())):
        images = holder.get("images") if isinstance(holder, dict) else None
        yield from (image for image in images or () if isinstance(image, str)) if isinstance(images, list) else ()


def _parts(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of every message, those inside a tool's result too."""
    for list_ in (fields.get("messages"), fields.get("input")):
        waiting = list(list_) if isinstance(list_, list) else []
        while waiting:
            each = waiting.pop(0)
            if isinstance(each, dict):
                yield each
                waiting[:0] = each["content"] if isinstance(each.get("content"), list) else []


def _in_part(part: dict[str, Any]) -> Iterator[str]:
    if part.get("type") in ("image_url", "input_image"):
        given = part.get("image_url")
        yield _data(str(given.get("url") if isinstance(given, dict) else given))
    elif part.get("type") == "image":
        source = part.get("source")
        if not isinstance(source, dict) or source.get("type") != "base64":
            raise ApiError(400, "invalid image source type: only base64 is supported", direct=True)
        yield str(source.get("data", ""))


def _data(url: str) -> str:
    if url.startswith(("http://", "https://")):
        raise ApiError(400, _URL, direct=True)
    for prefix in _DATA:
        if url.startswith(prefix):
            return url.removeprefix(prefix)
    raise ApiError(400, "invalid image input", direct=True)
