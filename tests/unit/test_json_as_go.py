"""The scanner against Go's own encoding/json, which Ollama decodes with: what both take names one model, what is refused is refused there.

Needs `go`; without it the tests are skipped, and test_jsonscan.py has the texts as they were.
"""

import random
from collections.abc import Callable

import pytest

from hermes.errors import BadRequest
from hermes.frontend.jsonbody import ROUTING_KEYS, read_members
from hermes.frontend.native import GENERATING, model_member

PROGRAM = """
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

type ChatRequest struct {
	Model string `json:"model"`
	FIELDS
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	for {
		line, err := lines.ReadBytes('\\n')
		if err == io.EOF {
			break
		}
		body := make([]byte, len(line)/2)
		hex.Decode(body, bytes.TrimSpace(line))
		var found ChatRequest
		text := ""
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&found); err != nil {
			text = err.Error()
		}
		answer, _ := json.Marshal([]any{text, found.Model, FOUND})
		fmt.Fprintln(out, string(answer))
	}
	out.Flush()
}
"""
KEYS = ("name", "stream", "keep_alive", "options", "prompt", "messages", "input", "max_tokens", "max_output_tokens", "temperature", "top_p", "top_k", "seed",
        "presence_penalty", "frequency_penalty")
NAMES = {key: key.title().replace("_", "") for key in KEYS}
PROGRAM = PROGRAM.replace("FIELDS", "\n\t".join(f'{name} json.RawMessage `json:"{key}"`' for key, name in NAMES.items()))
PROGRAM = PROGRAM.replace("FOUND", ", ".join(f"found.{name} != nil" for name in NAMES.values()))
RULES = GENERATING["/api/chat"]


@pytest.fixture(scope="module")
def go(go_program) -> Callable[[list[bytes]], list[list]]:
    """Bodies in; for each Go's error text, the model it found, and which of KEYS."""
    ask = go_program(PROGRAM)
    return lambda bodies: [[text.replace("main.ChatRequest", "api.ChatRequest"), *found] for text, *found in ask(bodies)]


def ours(body: bytes) -> tuple[str, str | None, list[bool]]:
    try:
        members = RULES.members(body)
        member = members.get("model")
        model = "" if member is None or member.kind == "null" else member.value if member.empty and member.kind == "string" else model_member(members, RULES).value
    except BadRequest as error:
        return error.text, None, []
    return "", model, [key in members for key in KEYS]


def letters(rng: random.Random, key: str) -> str:
    """A way to write a key that may or may not be that key for Go."""
    forms = {"k": "k\u212aK", "s": "s\u017fS"}
    text = "".join(rng.choice(forms.get(char, char + char.upper())) if rng.random() < 0.3 else char for char in key)
    return text + rng.choice(("", "", "", "", "", "x", "\u0131", "\ufb06"))


def key_text(rng: random.Random) -> str:
    key = letters(rng, rng.choice(("model", "model", *KEYS, "other", "k", "")))
    return '"' + "".join(f"\\u{ord(char):04x}" if rng.random() < 0.1 else char for char in key) + '"'


def value_text(rng: random.Random, depth: int = 0) -> str:
    kind = rng.randint(0, 4 if depth > 3 else 6)
    if kind < 3:
        return rng.choice(['"m"', '"a:7b"', '""', '"\\"m\\\\"', '"\\ud800x"', '"\\ud83d\\ude00\\/"', '"☃{["', '"]}\\\\"', "null", "true", "false", "\"\\u006d\""])
    if kind < 5:
        return rng.choice(["0", "-0", "1.5", "1e5", "-2E-7", "10" * 20])
    items = range(rng.randint(0, 3))
    space = rng.choice(("", " ", "\n\t"))
    if kind == 5:
        return "[" + f",{space}".join(value_text(rng, depth + 1) for _ in items) + space + "]"
    return "{" + space + ",".join(f"{key_text(rng)}{space}:{value_text(rng, depth + 1)}" for _ in items) + "}"


def document(rng: random.Random) -> bytes:
    members = [f"{key_text(rng)} : {value_text(rng)}" for _ in range(rng.randint(0, 5))]
    if rng.random() < 0.7:
        members.insert(rng.randint(0, len(members)), '"model":"m' + rng.choice("abc") + '"')
    return (rng.choice(("", " ", "\n")) + "{" + ",".join(members) + "}" + rng.choice(("", "", " ", "x", "{}"))).encode()


def mutated(rng: random.Random, body: bytes) -> bytes:
    """A few bytes changed, dropped, doubled or added."""
    data = bytearray(body)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        piece = bytes([rng.choice(b'"\\{}[]:,0e.-tn \x00\x1f\xff\xc3u/')]) if rng.random() < 0.9 else rng.choice((b'"model":"z"', b",", b'"'))
        data[at:at + rng.choice((0, 1, 1, 2, 9))] = piece if rng.random() < 0.7 else b""
    return bytes(data)


def test_what_both_take_is_one_model(go) -> None:
    rng = random.Random(3)
    valid = [document(rng) for _ in range(6000)]
    bodies = valid + [mutated(rng, body) for body in valid * 3]
    both = one = 0
    for body, (theirs, model, *found) in zip(bodies, go(bodies), strict=True):
        text, ours_model, ours_found = ours(body)
        if theirs == "" and text == "":
            both += 1
            assert ours_model == model, body
            assert ours_found == found, body
        elif theirs == "":
            assert "twice" in text, (body, text)         # the one thing that Go takes and we do not
        elif text == "":
            one += 1                                     # Ollama will refuse it
    assert both > 5000 and one > 100


def test_refusals_are_in_gos_words(go) -> None:
    """Bytes that open nothing, in every place at the top level: what is wrong inside a value is not ours to find."""
    rng = random.Random(4)
    whole = [b'{"model":"m","a":"x y","b":-1.5e+7,"c":true,"d":null}', b' { "model" : "m" } ', b"-0.5", b'"x"', b"null", b"true"]
    bodies = [body[:at] + bytes([code]) + body[at + skip:] for body in whole for at in range(len(body) + 1) for skip in (0, 1)
              for code in [*b'}]:,0e.-+tn \x00\xff', rng.choice(b"'*/9EINabc\x07\x7f\x80\xa0\xad\xe9")]]
    bodies += [b"", b" ", *(body[:end] for body in whole for end in range(1, len(body)))]
    compared = 0
    for body, (theirs, *_) in zip(bodies, go(bodies), strict=True):
        text, *_ = ours(body)
        if text and "twice" not in text and body.strip() and "valid JSON" not in text:
            inner = any(word in theirs for word in ("string literal", "string escape", "hexadecimal"))
            assert text == theirs or inner, (body, text, theirs)
            compared += not inner
    assert compared > 1000


def test_texts_that_need_no_mutation(go) -> None:
    bodies = [bytes([code]) for code in range(33, 256)] + [b"[" * 10_001, b'{"a":' * 10_001, b'{"model":7}', b'{"model":[]}', b'{"model":{}}', b'{"model":true}', b"[]", b"7", b'"x"', b"true"]
    texts = [ours(body)[0] for body in bodies]
    assert texts == [text for text, *_ in go(bodies)]
    assert "invalid character '[' exceeded max depth" in texts


def test_keys_are_the_ones_go_would_take(go) -> None:
    assert set(KEYS) | {"model"} == ROUTING_KEYS
    others = [chr(code) for code in (*range(0xa0, 0x250), *range(0x1e00, 0x1f00), *range(0x2100, 0x2190), *range(0xfb00, 0xfb07))]
    bodies = [f'{{"model":"m","{key.replace(char, other)}":1}}'.encode() for key in KEYS for char in "skt" if char in key for other in others]
    for body, (text, _, *found) in zip(bodies, go(bodies), strict=True):
        assert not text and [key in read_members(body) for key in KEYS] == found, body.decode()
