"""The members of a JSON body: which keys are one key, where values stand, and what is refused."""

import json
import random

import pytest

from hermes.errors import BadRequest
from hermes.frontend.jsonbody import (KEY_MAX, MEMBERS_MAX, ROUTING_KEYS, VALUE_MAX, Edit, Pieces, fold, insert, inserting, read_members, replace,
                                       replacing, set_inside, setting, setting_inside, splice)

KELVIN, LONG_S = "\u212a", "\u017f"


def joined(pieces: Pieces) -> bytes:
    return b"".join(pieces)


def change(body: bytes, outer: str, key: str, value: object) -> bytes:
    return joined(set_inside(body, outer, {key: value}))


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
        new = joined(replace(raw, member, 'y"\\☃'))
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
        assert json.loads(joined(replace(body, found["model"], "new"))) == members | {"model": "new"}


GO = "json: cannot unmarshal {kind} into Go value of type api.X"


@pytest.mark.parametrize(("body", "text"), [
    (b"", "nothing"), (b" \r\n\t", "nothing"), (b"[]", "array"), (b"[1]{}", "array"), (b"7", "number"), (b"-1.5e3 x", "number"), (b'"x"', "string"), (b"true", "bool"),
    (b"falsehood", "bool"),
])
def test_texts_of_the_caller(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_members(body, "nothing", GO)
    assert caught.value.text == (text if text == "nothing" else GO.format(kind=text))


@pytest.mark.parametrize(("body", "text"), [(b"", "missing request body"), (b"[]", "the request body must be a JSON object, not array")])
def test_texts_otherwise(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        read_members(body)


@pytest.mark.parametrize(("body", "expected"), [
    (b"{}", {}), (b"{}garbage", {}), (b'{"a":1}}}}', {"a": 1}), (b"null", {}), (b"nullify", {}), (b' {"a":1} {"a":2}', {"a": 1}), (b'{"a":null}', {"a": None}),
    (b'{"a":1e5,"b":-0,"c":0.5}', {"a": 1e5, "b": 0, "c": 0.5}), (b'{"":1}', {"": 1}), (b'{"a":"\xff"}', {"a": "\ufffd"}), (b'{"a":"\xe2\x82"}', {"a": "\ufffd\ufffd"}),
    (b'{"a":"\\ud800"}', {"a": "\ufffd"}), (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}), (b'{"a":{"b":[1,"}"]}}', {"a": {"b": [1, "}"]}}),
])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_accepted(kind: type, body: bytes, expected: dict) -> None:
    assert {key: member.value for key, member in read_members(kind(body)).items()} == expected


@pytest.mark.parametrize("value", ["m", "é", "☃", "日本", "\n\"\\"])
def test_text_is_decoded(value: str) -> None:
    for ascii_only in (True, False):
        assert read_members(json.dumps({"model": value}, ensure_ascii=ascii_only).encode())["model"].value == value


@pytest.mark.parametrize("value", [b'"\n"', b'"\\x"', b'"\\u12"', b"[NaN]", b"[Infinity]", b"[}", b"{1:2}", b"[1,]", b"[" * 5000 + b"]" * 5000, b"[" + b"9" * 5000 + b"]"])
def test_values_that_are_no_json_are_found_out_when_they_are_asked_for(value: bytes) -> None:
    member = read_members(b'{"model":"m","a":%b}' % value)["a"]
    with pytest.raises(BadRequest, match="not valid JSON"):
        member.value


def test_a_long_value_is_not_decoded() -> None:
    members = read_members(b'{"model":"%b","a":"%b"}' % (b"x" * (VALUE_MAX - 1), b"x" * (VALUE_MAX - 2)))
    assert len(members["a"].value) == VALUE_MAX - 2
    with pytest.raises(BadRequest, match="too long"):
        members["model"].value


@pytest.mark.parametrize(("value", "empty"), [
    (b'""', True), (b'" "', False), (b"null", True), (b"[]", True), (b"[ \n ]", True), (b"[0]", False), (b"{}", True), (b"{ }", True), (b'{"a":1}', False), (b"0", False), (b"false", False),
])
def test_empty(value: bytes, empty: bool) -> None:
    assert read_members(b'{"a":%b}' % value)["a"].empty is empty


def test_only_two_characters_beyond_ascii_fold_into_it() -> None:
    """As in Go (unicode.SimpleFold); a full folding would take U+FB06 for st."""
    assert {char for char in map(chr, range(128, 0x110000)) if not 0xd800 <= ord(char) < 0xe000 and fold(char).isascii()} == {KELVIN, LONG_S}
    assert list(read_members('{"\ufb06ream":1}'.encode())) == ["\ufb06ream"]


@pytest.mark.parametrize("key", sorted(ROUTING_KEYS))
def test_no_routing_key_comes_twice(key: str) -> None:
    with pytest.raises(BadRequest, match="twice"):
        read_members(f'{{"{key}":null,"{key.upper()}":null}}'.encode())


def test_every_routing_key_is_read_however_it_is_escaped() -> None:
    for key in ROUTING_KEYS:
        assert list(read_members(b'{"%b":1}' % b"".join(b"\\u%04x" % ord(char) for char in key))) == [key]


def test_long_keys_are_other_keys() -> None:
    body = b'{"model":"m","%b":1,"%b":2}' % (b"a" * KEY_MAX, b"a" * 10_000_000)
    members = read_members(body)
    assert members["model"].value == "m" and len(members) == 2 and max(map(len, members)) < 200


def test_members_have_a_bound() -> None:
    body = b"{%b}" % b",".join(b'"%d":1' % number for number in range(MEMBERS_MAX))
    assert len(read_members(body)) == MEMBERS_MAX
    with pytest.raises(BadRequest, match="members"):
        read_members(body[:-1] + b',"x":1}')


# -- changes -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("body", "expected"), [
    (b"{}", b'{"k": "10m", "n": 1}'), (b" null", b' {"k": "10m", "n": 1}'), (b'{"a":1}x', b'{"k": "10m", "n": 1,"a":1}x'), (b' { "a":1}', b' {"k": "10m", "n": 1, "a":1}'),
])
def test_insert(body: bytes, expected: bytes) -> None:
    assert joined(insert(body, {"k": "10m", "n": 1})) == expected


@pytest.mark.parametrize(("body", "expected"), [
    (b'{"m":1}', {"options": {"num_ctx": 8}, "m": 1}), (b"{}", {"options": {"num_ctx": 8}}), (b"null", {"options": {"num_ctx": 8}}),
    (b'{"options":null,"m":1}', {"options": {"num_ctx": 8}, "m": 1}), (b'{"OPTIONS":{}}', {"OPTIONS": {"num_ctx": 8}}),
    (b'{"options":{ }}', {"options": {"num_ctx": 8}}), (b'{"options":{"a":[1,{"num_ctx":2}]}}', {"options": {"num_ctx": 8, "a": [1, {"num_ctx": 2}]}}),
    (b'{"options":{"num_ctx":4096,"a":1}}', {"options": {"num_ctx": 8, "a": 1}}), (b'{"options":{"a":1,"num\\u005fctx" : {"x":1} }}', {"options": {"a": 1, "num_ctx": 8}}),
    (b'{"options":{"num_ctx":1,"num_ctx":2}}', {"options": {"num_ctx": 8}}), (b'{"options":{"NUM_CTX":1}}', {"options": {"num_ctx": 8, "NUM_CTX": 8}}),
    (b'{"options":{"NUM_CTX":1,"num_ctx":2}}', {"options": {"num_ctx": 8, "NUM_CTX": 8}}),
    (b'{"options":"x"}', {"options": "x"}), (b'{"options":[1]}', {"options": [1]}),
])
def test_set_inside(body: bytes, expected: dict) -> None:
    assert json.loads(change(body, "options", "num_ctx", 8)) == expected


def test_set_inside_a_broken_object() -> None:
    with pytest.raises(BadRequest, match="looking for beginning of object key string"):
        change(b'{"options":{"a":1,}}', "options", "num_ctx", 8)


def test_several_changes_at_once_leave_every_other_byte_alone() -> None:
    body = bytearray(b'{ "a" : 1.50, "model":"m",\t"options":{"seed":1e0},"images":["%b"] } ' % (b"A" * 100_000))
    members = read_members(body)
    pieces = splice(body, [*setting_inside(members, "options", {"num_ctx": 8}), replacing(members["model"], "é"), inserting(members, {"keep_alive": "10m"})])
    assert joined(pieces) == (b'{"keep_alive": "10m", "a" : 1.50, "model":"\\u00e9",\t"options":{"num_ctx": 8,"seed":1e0},"images":["%b"] } ' % (b"A" * 100_000))
    assert [piece.obj is body for piece in pieces if len(piece) > 100] == [True], "a large body is not copied"


@pytest.mark.parametrize(("body", "expected"), [
    (b'{"A" : 1, "c":3}', b'{"b": "x","A" : 2, "c":3}'), (b'{"b":null,"a":[1]}', b'{"b":"x","a":2}'), (b'{"c":3}', b'{"a": 2, "b": "x","c":3}')])
def test_set_at_the_top(body: bytes, expected: bytes) -> None:
    assert joined(splice(body, setting(read_members(body), {"a": 2, "b": "x"}))) == expected


@pytest.mark.parametrize(("options", "expected"), [
    ('{"x":1,"a": 1.50 ,"A":2,"b":[{"x":"}"}]}', '{"n": 8,"a": 1.50,"b":[{"x":"}"}]}'), ('{"x":1}', '{"n": 8}'), ("{}", '{"n": 8}'), ('{"n":1,"N":2,"a":3}', '{"n": 8,"a":3}')])
def test_what_is_not_known_goes(options: str, expected: str) -> None:
    body = f'{{"m":1, "options" :{options} }} '.encode()
    assert joined(set_inside(body, "options", {"n": 8}, ("a", "b", "n"))).decode() == f'{{"m":1, "options" :{expected} }} '


def test_splice() -> None:
    assert joined(splice(b"0123456789", [Edit(8, 8, b"x"), Edit(0, 2, b""), Edit(8, 8, b"y"), Edit(10, 10, b"!")])) == b"234567xy89!"
    assert joined(splice(memoryview(b"ab"), [])) == b"ab" and splice(b"", []) == ()
