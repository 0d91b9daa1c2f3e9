"""Reading: an HTTP request off the wire; JSON by the rules of Go's decoder, in its words (ollama-api.md §0.14)."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hermes.simulator.client import Client, ClientGone

_MAX_HEAD = 1_048_576
_PIECE = 65_536
_KINDS = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}


class BadRequest(ValueError):
    """Something that is not HTTP."""


@dataclass(frozen=True)
class Request:
    """One request as it came. `path` is without its query, which Ollama ignores."""

    method: str
    path: str
    body: bytes
    http10: bool
    close: bool
    headers: dict[str, str]
    query: str = ""
    uploads: bool = False
    """Its body is a blob's, and has not been read."""


def read_request(client: Client) -> Request | None:
    """The next request of a connection, or None if the peer has closed it. Runs in the handler thread."""
    try:
        head = client.read_until(b"\r\n\r\n", _MAX_HEAD)
        if head is None:
            return None
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, version = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        http10 = version == "HTTP/1.0"
        path, _, query = target.partition("?")
        uploads = method == "POST" and path.startswith("/api/blobs/")
        body = b"" if uploads else b"".join(read_body(client, headers))
    except ValueError as error:
        raise BadRequest(str(error)) from error
    close = http10 or headers.get("connection", "").lower() == "close"
    return Request(method, path, body, http10, close, headers, query, uploads)


def read_body(client: Client, headers: dict[str, str]) -> Iterator[bytes]:
    """The body of a request, in pieces; asked for first if the client waits for that. Raises BadRequest on bad framing."""
    if headers.get("expect", "").lower() == "100-continue":
        client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get("transfer-encoding", "").lower() != "chunked":
        yield from _pieces(client, _number(headers.get("content-length", "0"), 10))
        return
    while size := _number(_line(client).partition(b";")[0], 16):
        yield from _pieces(client, size)
        client.read_exactly(2)
    while _line(client) != b"\r\n":
        pass  # Trailers.


def _line(client: Client) -> bytes:
    try:
        line = client.read_until(b"\r\n", _MAX_HEAD)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if line is None:
        raise ClientGone
    return line


def _number(text: str | bytes, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise BadRequest(f"no number: {text!r}") from None


def _pieces(client: Client, left: int) -> Iterator[bytes]:
    while left:
        piece = client.read_exactly(min(left, _PIECE))
        left -= len(piece)
        yield piece


class DecodeError(ValueError):
    """A body that Go would not decode; the text is Go's."""


class EmptyBody(DecodeError):
    """A body without anything in it; the text differs by dialect."""


def _fold(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return {key.casefold(): value for key, value in pairs}


def _no_constant(name: str) -> None:
    raise DecodeError("invalid character 'I' in numeric literal" if name[0] == "-" else f"invalid character {name[0]!r} looking for beginning of value")


_decoder = json.JSONDecoder(object_pairs_hook=_fold, parse_constant=_no_constant)


def parse(body: bytes) -> object:
    """The first JSON value of a body, the keys of objects folded; what follows it is ignored."""
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise EmptyBody
    try:
        value, _ = _decoder.raw_decode(text)
    except DecodeError:
        raise
    except json.JSONDecodeError as error:
        raise DecodeError(_go_syntax_error(text, error)) from None
    except (RecursionError, ValueError):  # Nested too deeply, or a number with thousands of digits.
        raise DecodeError("exceeded max depth") from None
    return value


def to_struct(value: object, struct: str, types: dict[str, str]) -> dict[str, object]:
    """The fields of a request, nulls left out. `types` names the Go types of some fields; others pass."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DecodeError(f"json: cannot unmarshal {_KINDS[type(value)]} into Go value of type {struct}")
    for name, kind in types.items():
        _check_type(value.get(name), kind, f"{struct.rpartition('.')[2]}.{name}")
    return {key: item for key, item in value.items() if item is not None}


_GO_TYPES: dict[str, type] = {
    "string": str, "bool": bool, "int": int, "map[string]interface {}": dict, "map[string]string": dict,
    "[]api.Message": list, "[]openai.Message": list, "[]anthropic.MessageParam": list,
}


def _check_type(value: object, kind: str, where: str) -> None:
    if value is not None and type(value) is not _GO_TYPES[kind]:
        raise DecodeError(f"json: cannot unmarshal {_KINDS[type(value)]} into Go struct field {where} of type {kind}")


def _go_syntax_error(text: str, error: json.JSONDecodeError) -> str:
    if error.pos >= len(text) or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    found = f"invalid character {text[error.pos]!r}"
    if error.msg.startswith("Expecting property name"):
        return f"{found} looking for beginning of object key string"
    if error.msg.startswith("Expecting ':'"):
        return f"{found} after object key"
    if error.msg.startswith("Expecting ','"):
        return f"{found} after object key:value pair"
    return f"{found} looking for beginning of value"


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def read_keep_alive(value: object) -> float | None:
    """Seconds of a keep_alive, infinity for ever, None if absent (ollama-api.md §3.4)."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        names = {bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}
        raise DecodeError(f"Unsupported type: '{names[type(value)]}'")
    seconds = _go_duration(value) if isinstance(value, str) else float(value)
    return float("inf") if seconds < 0 else seconds


def _go_duration(text: str) -> float:
    rest = text.lstrip("+-")
    if rest == "0":
        return 0.0
    parts = re.findall(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)", rest)
    if rest and "".join(number + unit for number, unit in parts) == rest:
        total = sum(float(number) * _UNITS[unit] for number, unit in parts)
        return -total if text.startswith("-") else total
    if re.fullmatch(r"\d+\.?\d*", rest):
        raise DecodeError(f'time: missing unit in duration "{text}"')
    raise DecodeError(f'time: invalid duration "{text}"')
