"""A plain field of a multipart/form-data body, and where it stands (RFC 7578, RFC 2046 §5.1.1; ollama-api.md §1.15). Pure.

One grammar, no repairs, as in http1: what Go's mime/multipart, behind which Ollama reads, could read in another way is refused. Files are
passed over in windows, never copied.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from hermes.errors import BadRequest
from hermes.frontend.jsonbody import Edit, Pieces, splice
from hermes.workers.messages import Bytes

WINDOW = 1 << 20            # bytes looked at in one call, so that other threads get their turn
HEAD_MAX = 8 * 1024         # bytes of one part's head
PARTS_MAX = 1000            # Go's own limit
VALUE_MAX = 4 * 1024        # bytes of a field that is read

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(r"[ \t]*;[ \t]*(" + _TOKEN + r")[ \t]*=[ \t]*(?:(" + _TOKEN + r')|"((?:[^"\\\r\n]|\\.)*+)")')
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]\Z")
_HEAD_END = re.compile(rb"\r\n\r\n")
_LINE_END = re.compile(rb"[ \t]*\r\n")


class Field(NamedTuple):
    """A field's value, and where it stands in the body, in bytes."""

    value: str
    start: int
    end: int


def find_field(body: Bytes, content_type: str, name: str = "model") -> Field | None:
    """The field `name`, or None. Raises BadRequest: also if it is there twice, is a file, or comes encoded."""
    found = None
    for head, start, end in _parts(body, boundary_of(content_type)):
        fields = _fields(head)
        parameters = _parameters(fields.get("content-disposition", ""), "form-data")
        if any(key.startswith("name*") for key in parameters):
            raise BadRequest("a field's name must not be encoded")          # RFC 7578 §4.2; Go would decode it
        if parameters.get("name") != name:
            continue
        if found:
            raise BadRequest(f"the field '{name}' is given twice")
        plain = fields.get("content-transfer-encoding", "8bit").lower() in ("7bit", "8bit", "binary")
        if not plain or any(key.startswith("filename") for key in parameters):
            raise BadRequest(f"the field '{name}' must be plain text")
        found = Field(_text(body, start, end, name), start, end)
    return found


def replace(body: Bytes, field: Field, value: str) -> Pieces:
    """`body` with another value in the place of `field`. The value must not hold a line with the boundary: a model's name cannot."""
    return splice(body, [Edit(field.start, field.end, value.encode())])


def boundary_of(content_type: str) -> bytes:
    """The boundary a multipart/form-data body says it has. Raises BadRequest."""
    boundary = _parameters(content_type, "multipart/form-data").get("boundary", "")
    if not _BOUNDARY.match(boundary):
        raise BadRequest("the boundary of the multipart body is missing or malformed")
    return boundary.encode("ascii")


def _parts(body: Bytes, boundary: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Head, and where the content begins and ends, of each part up to the closing boundary."""
    delimiter = re.compile(rb"\r\n--" + re.escape(boundary))
    skip = 2 if bytes(body[:2]) == b"\r\n" else 0
    at = skip + 2 + len(boundary)
    if bytes(body[skip:at]) != b"--" + boundary:
        raise BadRequest("the multipart body does not begin with its boundary")
    for _ in range(PARTS_MAX + 1):
        if bytes(body[at:at + 2]) == b"--":
            return
        line = _LINE_END.match(body, at, at + HEAD_MAX)
        if not line:
            raise BadRequest("malformed boundary in the multipart body")
        # A part without a head has an empty line at once: its line end is the one behind the boundary.
        head = _HEAD_END.search(body, line.end() - 2, line.end() + HEAD_MAX)
        if not head:
            raise BadRequest("a part of the multipart body has no head, or too long a one")
        end, at = _content(delimiter, body, head.end())
        yield bytes(body[line.end():head.start()]), head.end(), max(end, head.end())
    raise BadRequest(f"the multipart body has more than {PARTS_MAX} parts")


def _content(delimiter: re.Pattern[bytes], body: Bytes, at: int) -> tuple[int, int]:
    """Where the content from `at` on ends, and the delimiter behind it. An empty content may lack a line end of its own."""
    at -= 2
    while at < len(body):
        if match := delimiter.search(body, at, at + WINDOW):
            return match.span()
        at += WINDOW - 128                      # a delimiter may lie across the edge
    raise BadRequest("unexpected EOF")


def _fields(head: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in head.split(b"\r\n") if head else ():
        name, colon, value = line.partition(b":")
        key = name.decode("latin-1").lower()
        if not colon or not re.fullmatch(_TOKEN, key) or key in fields or b"\n" in line or b"\r" in line:
            raise BadRequest("malformed head of a part of the multipart body")      # continuation lines among them
        fields[key] = value.strip(b" \t").decode("utf-8", "replace")
    return fields


def _parameters(value: str, kind: str) -> dict[str, str]:
    """The parameters of a header's value that begins with `kind`, by lower-case name."""
    value = value.strip(" \t")
    parameters: dict[str, str] = {}
    at = len(kind)
    if value[:at].lower() != kind:
        raise BadRequest(f"{kind} is wanted here")
    while at < len(value):
        match = _PARAMETER.match(value, at)
        if not match or (key := match[1].lower()) in parameters:
            raise BadRequest(f"malformed parameters of {kind}")
        # No letter is ever escaped, so a name with a backslash in it is not one that we look for.
        parameters[key] = match[2] if match[2] is not None else match[3]
        at = match.end()
    return parameters


def _text(body: Bytes, start: int, end: int, name: str) -> str:
    if end - start > VALUE_MAX:
        raise BadRequest(f"the field '{name}' is too long")
    try:
        return str(body[start:end], "utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"the field '{name}' is not UTF-8") from None
