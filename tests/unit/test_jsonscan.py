"""The scanner: in every window it finds what a whole parse finds, says what Go says, and never keeps the interpreter."""

import json
import random
import sys
import threading
import time

import pytest

from hermes.errors import BadRequest, BodyTooLarge
from hermes.frontend import jsonscan
from hermes.frontend.jsonbody import read_members
from hermes.frontend.jsonscan import DEPTH_MAX, NUMBER_MAX, TOKENS_MAX, Scanner, quoted

MB = 1 << 20


def random_value(rng: random.Random, depth: int = 0) -> object:
    kind = rng.randint(0, 5 if depth > 4 else 7)
    if kind < 3:
        return "".join(rng.choices('ab"\\\n/é☃😀{}[]:,\x7f \u2028', k=rng.choice((0, 1, 2, 3, 9, 40))))
    if kind < 6:
        return rng.choice([0, -1, 1.5, 1e300, -2.5e-7, 10 ** 30, True, False, None])
    if kind == 6:
        return [random_value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    return {str(random_value(rng, 9)) + str(number): random_value(rng, depth + 1) for number in range(rng.randint(0, 4))}


@pytest.mark.parametrize("window", [2, 3, 5, 16, MB])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_random_documents(monkeypatch, window: int, kind: type) -> None:
    """Spans and kinds against json.loads, for every way a window can cut a string, an escape or a nested value."""
    monkeypatch.setattr(jsonscan, "WINDOW", window)
    rng = random.Random(11)
    kinds = {str: "string", int: "number", float: "number", bool: "bool", type(None): "null", list: "array", dict: "object"}
    for _ in range(150):
        document = {f"{number}é": random_value(rng) for number in range(rng.randint(0, 6))}
        raw = json.dumps(document, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, None, 3])).encode()
        body = kind(b" \n" + raw + b"] trailing")
        found = [(json.loads(raw[key.start - 2:key.end - 2]), value) for key, value in Scanner(body).members(2)]
        assert [(name, value.kind, json.loads(raw[value.start - 2:value.end - 2])) for name, value in found] == [
            (name, kinds[type(value)], value) for name, value in document.items()]
        array = json.dumps(list(document.values())).encode()
        assert [json.loads(array[span.start:span.end]) for span in Scanner(kind(array)).elements(0)] == list(document.values())


@pytest.mark.parametrize("window", [2, 7, MB])
def test_backslashes_in_front_of_a_quote(monkeypatch, window: int) -> None:
    monkeypatch.setattr(jsonscan, "WINDOW", window)
    for before in range(6):
        for count in range(12):
            text = b"x" * before + b"\\" * count
            body = b'"%b"%b"' % (text, b"" if count % 2 == 0 else b"y")
            assert Scanner(body).value(0).end == (len(text) + 2 if count % 2 == 0 else len(body)), body


@pytest.mark.parametrize("window", [2, 5, MB])
@pytest.mark.parametrize("whole", [b'{"a":[1,{"b":"c\\\\\\""}],"d":-1.5e+7,"e":true,"f":null,"g":"h" } '])
def test_cut_off_anywhere(monkeypatch, window: int, whole: bytes) -> None:
    monkeypatch.setattr(jsonscan, "WINDOW", window)
    assert len(read_members(whole.rstrip())) == 5
    for end in range(1, len(whole) - 1):
        with pytest.raises(BadRequest) as caught:
            read_members(whole[:end])
        assert caught.value.text == "unexpected EOF", whole[:end]


# The texts are encoding/json's; test_json_as_go.py asks it itself.
@pytest.mark.parametrize(("body", "text"), [
    (b"{bad", "invalid character 'b' looking for beginning of object key string"), (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    (b'{,"a":1}', "invalid character ',' looking for beginning of object key string"), (b"{1:2}", "invalid character '1' looking for beginning of object key string"),
    (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"), (b'{"a" 1}', "invalid character '1' after object key"),
    (b'{"a":1 "b":2}', "invalid character '\"' after object key:value pair"), (b'{"a":01}', "invalid character '1' after object key:value pair"),
    (b'{"a":1]', "invalid character ']' after object key:value pair"), (b'{"a":}', "invalid character '}' looking for beginning of value"),
    (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"), (b'{"a":Infinity}', "invalid character 'I' looking for beginning of value"),
    (b'{"a":-Infinity}', "invalid character 'I' in numeric literal"), (b'{"a":+1}', "invalid character '+' looking for beginning of value"),
    (b'{"a":1.}', "invalid character '}' after decimal point in numeric literal"), (b'{"a":1.5.2}', "invalid character '.' after object key:value pair"),
    (b'{"a":1e}', "invalid character '}' in exponent of numeric literal"), (b'{"a":1E+x}', "invalid character 'x' in exponent of numeric literal"),
    (b'{"a":1e5e}', "invalid character 'e' after object key:value pair"), (b'{"a":1e5.}', "invalid character '.' after object key:value pair"),
    (b'{"a":tru}', "invalid character '}' in literal true (expecting 'e')"), (b'{"a":nil}', "invalid character 'i' in literal null (expecting 'u')"),
    (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"), (b"\x00{}", "invalid character '\\x00' looking for beginning of value"),
    ('{"a":1}'.encode("utf-16"), "invalid character 'ÿ' looking for beginning of value"), (b'{"a":\xa01}', "invalid character '\\u00a0' looking for beginning of value"),
    (b'\x0b{"a":1}', "invalid character '\\v' looking for beginning of value"), (b"// c\n{}", "invalid character '/' looking for beginning of value"),
    (b"[" * 100_000, "invalid character '[' exceeded max depth"), (b'{"a":' * 100_000, "invalid character '{' exceeded max depth"),
])
def test_what_is_wrong_is_said_as_go_says_it(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_members(body)
    assert (caught.value.status, caught.value.text) == (400, text)


@pytest.mark.parametrize("body", [b"[1 2]", b"[1,]", b"[,]", b"[1}"])
def test_elements_are_checked(body: bytes) -> None:
    with pytest.raises(BadRequest, match="invalid character"):
        list(Scanner(body).elements(0))


def test_characters_are_shown_as_go_shows_them() -> None:
    assert [quoted(code) for code in b"a\"'\\\n\x01\x7f\x80\xa0\xad\xe9"] == ["'a'", "'\"'", r"'\''", r"'\\'", r"'\n'", r"'\x01'", r"'\x7f'", r"'\u0080'", r"'\u00a0'", r"'\u00ad'", "'é'"]


# What hurts (reliability.md B14): refused, or sent on for Ollama to judge. None = the model is found and the rest is Ollama's.
HURTS = {
    "16 MB of arrays": (b'{"model":"m","a":[' + b"[]," * (16 * MB // 3) + b"0]}", BodyTooLarge), "16 MB of arrays on top": (b"[" + b"[]," * (16 * MB // 3), BodyTooLarge),
    "16 MB of numbers": (b'{"model":"m","a":[' + b"1," * (8 * MB) + b"0]}", None), "16 MB of empty strings": (b'{"a":[' + b'"",' * (16 * MB // 3) + b"0]}", BodyTooLarge),
    "16 MB of members": (b"{" + b'"":0,' * (16 * MB // 5) + b'"":0}', BadRequest), "depth 200k": (b'{"model":"m","a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", BadRequest),
    "depth at Go's limit": (b'{"model":"m","a":' + b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1) + b"}", None),
    "depth beyond Go's limit": (b'{"model":"m","a":' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX + b"}", BadRequest),
    "a million digits": (b'{"model":"m","a":' + b"9" * 1_000_000 + b"}", None), "sixteen million digits": (b'{"a":' + b"9" * 16_000_000 + b"}", BadRequest),
    "the longest number": (b'{"model":"m","a":' + b"9" * (NUMBER_MAX - 3) + b"}", None), "a number cut at its point": (b'{"a":' + b"9" * (NUMBER_MAX - 1) + b".5}", BadRequest),
    "a number cut in its exponent": (b'{"a":' + b"9" * (NUMBER_MAX - 2) + b"e+5}", BadRequest),
    "NaN": (b"NaN", BadRequest), "Infinity": (b'{"a":-Infinity}', BadRequest), "NaN inside": (b'{"model":"m","a":[NaN]}', None),
    "lone surrogates": (b'{"model":"m","a":"\\ud800\\udc00\\ud800"}', None), "UTF-16": ('{"model":"m"}'.encode("utf-16-le"), BadRequest), "BOM": (b'\xef\xbb\xbf{"model":"m"}', BadRequest),
    "control characters inside": (b'{"model":"m","a":["\n"]}', None), "the wrong bracket": (b'{"model":"m","a":[}}', None), "an open string": (b'{"a":"' + b"x" * 16 * MB, BadRequest),
    "16 MB of escaped quotes": (b'{"model":"m","a":"' + b'\\"' * (8 * MB) + b'"}', None), "16 MB of backslashes": (b'{"model":"m","a":"' + b"\\" * (16 * MB) + b'"}', None),
    "16 MB of spaces": (b'{"model":"m",' + b" " * (16 * MB) + b'"a":1}', None), "16 MB of brackets in a string": (b'{"model":"m","a":["' + b"[{" * (8 * MB) + b'"]}', None),
    "just enough tokens": (b'{"model":"m","a":[' + b"[]," * ((TOKENS_MAX - 6) // 2) + b"0]}", None), "a token too many": (b'{"model":"m","a":[' + b"[]," * ((TOKENS_MAX - 4) // 2) + b"0]}", BodyTooLarge),
}


@pytest.mark.parametrize("number", [b"9" * NUMBER_MAX, b"9" * (NUMBER_MAX - 1) + b".5", b"9" * (NUMBER_MAX - 2) + b"e+5", b"1." + b"9" * NUMBER_MAX])
def test_a_number_that_does_not_fit_is_not_called_malformed(number: bytes) -> None:
    with pytest.raises(BadRequest, match="too long"):
        Scanner(number + b",").value(0)


class Looks:
    """A regular expression that notes how much each look at the body may have taken in."""

    def __init__(self, pattern, seen: list[int]):
        self._pattern, self._seen = pattern, seen

    def __getattr__(self, name: str):
        def look(body, at: int, edge: int = 1 << 40):
            self._seen.append(min(edge, len(body)) - at)
            return getattr(self._pattern, name)(body, at, edge)
        return look


@pytest.mark.parametrize("name", [name for name in HURTS if name.startswith("16 MB")])
def test_no_single_look_is_long(monkeypatch, name: str) -> None:
    seen: list[int] = []
    for pattern in ("_SPACE", "_NEXT_QUOTE", "_IN_STRING", "_TOKEN", "_NUMBER"):
        monkeypatch.setattr(jsonscan, pattern, Looks(getattr(jsonscan, pattern), seen))
    try:
        read_members(HURTS[name][0])
    except (BadRequest, BodyTooLarge):
        pass
    assert max(seen) == jsonscan.WINDOW


class Ticker:
    """Another thread's life: the longest it ever waited for the interpreter, in seconds."""

    def __enter__(self) -> "Ticker":
        self.gap, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._tick)
        self._interval = sys.getswitchinterval()
        self._thread.start()
        return self

    def _tick(self) -> None:
        last = time.monotonic()
        while not self._over.wait(0.001):
            now = time.monotonic()
            self.gap, last = max(self.gap, now - last), now
        self.gap = max(self.gap, time.monotonic() - last)

    def __exit__(self, *exc) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("name", HURTS)
def test_what_hurts(name: str) -> None:
    body, error = HURTS[name]
    with Ticker() as ticker:
        began = time.process_time()
        if error is None:
            assert read_members(body)["model"].value == "m"
        else:
            with pytest.raises(error) as caught:
                read_members(body)
            assert caught.value.status in (400, 413) and len(caught.value.text) < 120
        took = time.process_time() - began
    assert ticker.gap < 0.25 and took < 4.0, (ticker.gap, took)
