"""The field `model` of a form: found where Go finds it, passed over without copying, and refused where two readers could disagree."""

import random
from collections.abc import Callable

import pytest

from hermes.errors import BadRequest
from hermes.frontend import multipart
from hermes.frontend.multipart import PARTS_MAX, VALUE_MAX, boundary_of, find_field, replace

TYPE = "multipart/form-data; boundary=XyZ"
MODEL = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"XyZ") -> bytes:
    return b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, content) for head, content in parts) + b"--%b--\r\n" % boundary


@pytest.mark.parametrize("body", [
    form((MODEL, b"whisper")), form((FILE, b"\x00\r\n--Xy\r\n\r\n--"), (MODEL, b"whisper")), form((MODEL, b"whisper"), (FILE, b"")), b"\r\n" + form((MODEL, b"whisper")),
    form((b"CONTENT-disposition:Form-Data ;NAME=model", b"whisper")), form((b"Content-Type: text/plain\r\n" + MODEL + b"\r\nContent-Transfer-Encoding: 8BIT", b"whisper")),
    form((b'Content-Disposition: form-data; name="other"', b"model"), (MODEL, b"whisper")), form((MODEL, b"whisper"))[:-2], form((MODEL, b"whisper")) + b"epilogue",
    form((MODEL, b"whisper")).replace(b"--XyZ\r\n", b"--XyZ \t\r\n"), form((b'Content-Disposition: form-data; name="Model"', b"x"), (MODEL, b"whisper")),
    b"--XyZ\r\nContent-Disposition: form-data; name=x\r\n\r\n--XyZ\r\n" + form((MODEL, b"whisper"))[7:], form((FILE.replace(b"a.wav", b'\\"; name=\\"model'), b"x"), (MODEL, b"whisper")),
])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_found(kind: type, body: bytes) -> None:
    field = find_field(kind(body), TYPE)
    assert field.value == "whisper" and body[field.start:field.end] == b"whisper"
    assert b"".join(replace(kind(body), field, "ä:1b")) == body.replace(b"whisper", "ä:1b".encode())


@pytest.mark.parametrize("body", [form((FILE, b"model")), b"--XyZ--", form((b'Content-Disposition: form-data; name="MODEL"', b"x")), form((b'Content-Disposition: form-data; name="mode\\l"', b"x"))])
def test_missing(body: bytes) -> None:
    assert find_field(body, TYPE) is None


def test_other_fields() -> None:
    body = form((b'Content-Disposition: form-data; name="stream"', b"true"), (MODEL, b""), (b'Content-Disposition: form-data; name="e"', "☃\r\n".encode()))
    assert [find_field(body, TYPE, name).value for name in ("stream", "model", "e")] == ["true", "", "☃\r\n"]


def test_an_empty_value_without_a_line_end_of_its_own() -> None:
    body = b"--XyZ\r\n" + MODEL + b"\r\n\r\n--XyZ--"
    assert find_field(body, TYPE) == ("", body.index(b"--XyZ--"), body.index(b"--XyZ--"))


@pytest.mark.parametrize(("body", "text"), [
    (form((MODEL, b"a"), (MODEL, b"a")), "twice"), (form((MODEL + b'; filename="x"', b"a")), "plain text"), (form((MODEL + b"; filename*=UTF-8''x", b"a")), "plain text"),
    (form((MODEL + b"\r\nContent-Transfer-Encoding: quoted-printable", b"=61")), "plain text"), (form((b"Content-Disposition: form-data; name*=UTF-8''model", b"a")), "encoded"),
    (form((b"Content-Disposition: form-data; name*0=mod; name*1=el", b"a")), "encoded"), (form((MODEL + b"; name=x", b"a")), "malformed"), (form((MODEL + b"; x", b"a")), "malformed"),
    (form((MODEL + b";", b"a")), "malformed"), (form((b"Content-Disposition: attachment; name=model", b"a")), "wanted"), (form((b"Content-Disposition: \xc2\xa0form-data; name=model", b"a")), "wanted"),
    (form((b"Content-Disposition: form-dataset; name=model", b"a")), "malformed"), (form((b"Content-Type: text/plain", b"a")), "wanted"), (form((b"", b"a")), "wanted"), (form((MODEL + b"\r\n" + MODEL, b"a")), "head"),
    (form((b"Content-Disposition: form-data;\r\n name=model", b"a")), "head"), (form((b"X y: z\r\n" + MODEL, b"a")), "head"), (form((MODEL + b"\nX: y", b"a")), "head"),
    (form((MODEL, b"a" * (VALUE_MAX + 1))), "too long"), (form((MODEL, b"\xff")), "UTF-8"), (b"", "begin"), (b"preamble\r\n" + form((MODEL, b"a")), "begin"), (b"--XyZ", "boundary"),
    (b"--XyZ\n" + MODEL, "boundary"), (form((MODEL, b"a"))[:-4], "boundary"), (form((MODEL, b"a"))[:-9], "EOF"), (form((MODEL, b"a\r\n--XyZab")), "boundary"), (form((MODEL, b"a\r\n--XyZ-")), "boundary"),
    (b"--XyZ\r\n" + MODEL, "head"), (b"--XyZ\r\n" + b"a: b\r\n" * 2000 + b"\r\n\r\n", "head"), (form(*[(FILE, b"")] * (PARTS_MAX + 1)), "parts"),
])
def test_refused(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        find_field(body, TYPE)


def test_as_many_parts_as_go_takes() -> None:
    assert find_field(form(*[(FILE, b"")] * (PARTS_MAX - 1), (MODEL, b"m")), TYPE).value == "m"


@pytest.mark.parametrize(("content_type", "boundary"), [
    (TYPE, b"XyZ"), ('Multipart/Form-Data; charset=utf-8; Boundary="a b\'():=?"', b"a b'():=?"), ("multipart/form-data;boundary=----WebKit1", b"----WebKit1"), ("multipart/form-data; boundary=" + "x" * 70, b"x" * 70),
])
def test_boundary(content_type: str, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary
    assert find_field(form((FILE, b"--"), (MODEL, b"m"), boundary=boundary), content_type).value == "m"


@pytest.mark.parametrize("content_type", [
    "", "application/json", "multipart/mixed; boundary=x", "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""', 'multipart/form-data; boundary="x "',
    "multipart/form-data; boundary=" + "x" * 71, "multipart/form-data; boundary=x; boundary=y", 'multipart/form-data; boundary="ä"', "multipart/form-data; boundary=x y", 'multipart/form-data; boundary="a\\"b"',
])
def test_no_boundary(content_type: str) -> None:
    with pytest.raises(BadRequest):
        boundary_of(content_type)


def test_a_delimiter_across_the_edge_of_a_window(monkeypatch) -> None:
    monkeypatch.setattr(multipart, "WINDOW", 256)
    for size in range(300):
        assert find_field(form((FILE, b"\r\n--" * (size // 4) + b"x" * (size % 4)), (MODEL, b"m")), TYPE).value == "m", size


def test_a_large_file_is_not_copied() -> None:
    body = bytearray(form((FILE, b"\r" * 30_000_000), (MODEL, b"m")))
    pieces = replace(body, find_field(body, TYPE), "other")
    assert [piece.obj is body for piece in pieces if len(piece) > 100] == [True]


PROGRAM = """
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"os"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		body, _ := hex.DecodeString(lines.Text())
		form, err := multipart.NewReader(bytes.NewReader(body), "XyZ").ReadForm(1 << 20)
		var models []string
		if err == nil {
			models = form.Value["model"]
		}
		answer, _ := json.Marshal([]any{err == nil, models})
		fmt.Println(string(answer))
	}
}
"""


@pytest.fixture(scope="module")
def go(go_program) -> Callable[[list[bytes]], list]:
    return go_program(PROGRAM)


def test_go_finds_the_same(go) -> None:
    """Whatever both take; what Go takes and we do not is allowed, what it reads otherwise is not."""
    rng = random.Random(6)
    heads = [MODEL, MODEL, FILE, b"Content-Disposition: form-data; name=model", b'content-disposition: form-data; name="prompt"\r\nContent-Type: text/plain', b'Content-Disposition: form-data; name="mod\\el"']
    contents = [b"m", b"a:7b", b"", b"\r\n", b"\r\n--XyZ", b"--XyZ", b"\r\n--Xy", b"-", b"\r", b"\n--XyZ\r\n"]
    bodies = []
    for _ in range(8000):
        body = bytearray(form(*[(rng.choice(heads), rng.choice(contents)) for _ in range(rng.randint(0, 3))]))
        for _ in range(rng.choice((0, 0, 1, 2))):
            at = rng.randrange(len(body))
            body[at:at + rng.choice((0, 1, 2))] = rng.choice((b"\r", b"\n", b"\r\n", b'"', b";", b"-", b" ", b"\\", b"*", b"=", b":", b"", b"--XyZ", b"\r\n--XyZ\r\n", b"; name=model", b"\xc2\xa0"))
        bodies.append(bytes(body))
    both = 0
    for body, (taken, models) in zip(bodies, go(bodies), strict=True):
        try:
            field = find_field(body, TYPE)
        except BadRequest:
            continue
        if taken:
            both += 1
            assert ([field.value] if field else None) == models, body
    assert both > 2000
