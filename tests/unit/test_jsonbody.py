"""The members of a JSON body: which keys are one key, where values stand, and what is refused."""

import json
import random

import pytest

from hermes.errors import BadRequest
from hermes.frontend.jsonbody import fold, read_members, replace, text_of

KELVIN, LONG_S = "\u212a", "\u017f"


@pytest.mark.parametrize("key", ["stream", "Stream", "STREAM", LONG_S + "tream", "\\u0073tream", "\\u017ftream", "s\\u0054ream",
                                 LONG_S + "\\u0074ream"])
def test_keys_that_are_one_key(key: str) -> None:
    assert read_members(f'{{"{key}":1}}'.encode())["stream"].value == 1
    with pytest.raises(BadRequest):
        read_members(f'{{"stream":1,"{key}":1}}'.encode())
    with pytest.raises(BadRequest):
        read_members(f'{{"{key}":1,"x":2,"stream":1}}'.encode())


@pytest.mark.parametrize("key", ["\\u006dodel", "Model", "MODEL", "mode\\u006c", "\\u004d\\u004f\\u0044\\u0045\\u004c"])
def test_model_in_disguise(key: str) -> None:
    assert read_members(f'{{"{key}":"a"}}'.encode())["model"].value == "a"
    with pytest.raises(BadRequest, match="twice"):
        read_members(f'{{"model":"a","{key}":"b"}}'.encode())


@pytest.mark.parametrize(("key", "folded"), [(KELVIN + "eep", "keep"), ("\\u212aeep", "keep"), ("é", "é"), ("É", "é"), ("ключ", "ключ")])
def test_fold(key: str, folded: str) -> None:
    assert list(read_members(f'{{"{key}":1}}'.encode())) == [folded]
    assert fold("MoDeL") == "model"


@pytest.mark.parametrize("key", ["modeł", "mode1", "model ", " model", "model\\u0000", "mоdel", "ｍodel", "models"])
def test_other_keys_are_other_keys(key: str) -> None:
    assert read_members(f'{{"model":"a","{key}":"b"}}'.encode())["model"].value == "a"


def test_other_keys_may_come_twice_and_the_last_wins() -> None:
    assert read_members(b'{"a":1,"A":2,"a":3}')["a"].value == 3


def test_spans() -> None:
    for body in ('{"model":"x"}', ' {\n"a" : [1, {"model": "inner"}] ,\t"model" :  "x\\n☃" , "b":"é"}\r\n', '{"é":"ü","model":"x"}'):
        raw = body.encode()
        member = read_members(raw)["model"]
        assert json.loads(raw[member.start:member.end]) == json.loads(body)["model"]
        new = replace(raw, member, 'y"\\☃')
        assert json.loads(new) == {**json.loads(body), "model": 'y"\\☃'}
        assert new[:member.start] == raw[:member.start] and new.endswith(raw[member.end:])


def test_spans_of_random_bodies() -> None:
    rng = random.Random(5)
    for _ in range(300):
        members = {"".join(rng.choices('aé☃"\\\n\u0001', k=rng.randint(1, 5))) + str(i): rng.choice(["ü", -1.5e9, None, True, [1, {"model": 2}], {"model": "no"}, ""])
                   for i in range(rng.randint(0, 5))} | {"model": "m"}
        body = json.dumps(members, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1])).encode()
        found = read_members(body)
        assert len(found) == len(members)
        assert json.loads(replace(body, found["model"], "new")) == members | {"model": "new"}


@pytest.mark.parametrize(("body", "text"), [
    (b"", "missing request body"), (b" \r\n\t", "missing request body"), (b"{", "unexpected EOF"), (b'{"a"', "unexpected EOF"),
    (b'{"a":', "unexpected EOF"), (b'{"a":1', "unexpected EOF"), (b'{"a":1,', "unexpected EOF"),
    (b"[]", "array"), (b"7", "number"), (b"-1.5", "number"), (b'"x"', "string"), (b"true", "bool"), (b"[1]{}", "array"),
])
def test_texts(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        read_members(body)


@pytest.mark.parametrize("body", [
    b'{"a":1,}', b'{,"a":1}', b"{1:2}", b"{a:1}", b"{'a':1}", b'{"a" 1}', b'{"a":1 "b":2}', b'{"a":}', b'{"a":NaN}', b'{"a":[NaN]}',
    b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":01}', b'{"a":+1}', b'{"a":.5}', b'{"a":1.}', b'{"a":0x1}', b'{"a":1_0}', b'{"a":tru}',
    b'{"a":"\n"}', b'{"a\t":1}', b'{"a":"\\x"}', b'{"a":"\\u12"}', b'{"a":"x', b"\xef\xbb\xbf{}", '{"a":1}'.encode("utf-16"), b"\x00{}", b"nul",
    b'{"a":\xa01}', b'\x0b{"a":1}', b"// c\n{}", b'{"a":' + b"[" * 100_000, b'{"a":' + b'{"a":' * 100_000, b"[" * 100_000,
])
def test_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read_members(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(("body", "expected"), [
    (b"{}", {}), (b"{}garbage", {}), (b'{"a":1}}}}', {"a": 1}), (b"null", {}), (b' {"a":1} {"a":2}', {"a": 1}), (b'{"a":null}', {"a": None}),
    (b'{"a":1e5,"b":-0,"c":0.5}', {"a": 1e5, "b": 0, "c": 0.5}), (b'{"":1}', {"": 1}), (b'{"a":"\xff"}', {"a": "\xff"}),
])
def test_accepted(body: bytes, expected: dict) -> None:
    assert {key: member.value for key, member in read_members(body).items()} == expected


@pytest.mark.parametrize("value", ["m", "é", "☃", "日本"])
def test_text_of(value: str) -> None:
    for ascii_only in (True, False):
        assert text_of(read_members(json.dumps({"model": value}, ensure_ascii=ascii_only).encode())["model"].value) == value
