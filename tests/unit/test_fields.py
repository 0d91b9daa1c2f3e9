"""What an event says comes back out of its JSON, whatever it is, and nothing else does."""

import ast
import itertools
import json
import logging
import random
import re
from pathlib import Path

import pytest

from hermes.observe import fields, logs

ROOT = Path(__file__).resolve().parents[2]
NASTY = ["", " ", "=", '"', "\\", "\\u0020", "a=b", ' level=error code="x" ', "\x1b[2J\x07", "\r\n", "\n", "\0", "\x7f", "\x85", "\u2028\u2029", "\u202e", "\ufeff",
         "\ud800", "é", "日本", "😀", "%s", "%(x)s", "{}", "null", "1e999", '{"a":1}', '"quoted"', '"half', "path=/x", "\xff\xc0"]
TIME = "2026-11-23T00:00:00.007Z"


def parsed(line: str) -> dict:
    """As a strict reader has it, which takes no key twice, no NaN, and nothing that is not to be seen."""
    def once(pairs: list[tuple[str, object]]) -> dict:
        assert len(dict(pairs)) == len(pairs), pairs
        return dict(pairs)

    def no_number(text: str) -> None:
        raise AssertionError(text)

    assert line.isascii() and line.isprintable() and len(line) < logs.LINE
    event = json.loads(line, object_pairs_hook=once, parse_constant=no_number)
    json.dumps(event, ensure_ascii=False).encode("utf-8")       # no half of a pair, which some readers refuse
    return event


def event_of(template: str, *values: object, exception: str = "") -> dict:
    record = logging.LogRecord("hermes", logging.INFO, "f", 1, template, values, None)
    return parsed(fields.as_json(fields.members(record, TIME, exception), logs.LINE - 1))


def test_words_and_fields() -> None:
    event = event_of("no start in %g s for %s pool=%s pid=%d queue_s=%.3f limit=%g error=%s", 20.0, "x=1 y", fields.word("a b"), 7, 1.23456, 0.5, "not a word")
    assert event == {"time": TIME, "level": "info", "message": "no start in 20 s for x=1 y", "pool": "a b", "pid": 7, "queue_s": 1.235, "limit": 0.5, "error": "not a word"}
    assert list(event)[:3] == ["time", "level", "message"] and type(event["pid"]) is int
    assert event_of("plain 100% a=b", exception="Traceback\n  x") == {"time": TIME, "level": "info", "message": "plain 100% a=b", "exception": "Traceback\n  x"}


def test_a_number_that_json_has_not() -> None:
    assert event_of("x a=%g b=%.3f", float("inf"), float("nan"))["a"] == "inf"


@pytest.mark.parametrize("text", NASTY)
def test_a_word_comes_back(text: str) -> None:
    said = fields.word(text)
    assert fields.unword(said) == text
    assert re.fullmatch(r'[^ "=]+|"(?:[^"\\]|\\.)*"', said), "one word, or one quoted text"


@pytest.mark.parametrize("text", ['"', '"half', '"a" b', '"a\nb"'])
def test_what_is_no_word_stays_as_it_is(text: str) -> None:
    assert fields.unword(text) == text


def test_whatever_the_values_are_they_come_back() -> None:
    chance = random.Random(17)
    for _ in range(3000):
        values = ["".join(chance.choices(NASTY, k=chance.randrange(9))) for _ in range(4)]
        number, seconds = chance.randrange(-10**9, 10**9), chance.uniform(-1e6, 1e6)
        event = event_of("request %s a=%s b=%s n=%d s=%.3f c=%s", values[0], *map(fields.word, values[1:3]), number, seconds, fields.word(values[3]))
        told = [value.encode("utf-8", "backslashreplace").decode() for value in values]
        assert event == {"time": TIME, "level": "info", "message": f"request {told[0]}", "a": told[1], "b": told[2], "n": number, "s": round(seconds, 3), "c": told[3]}


@pytest.mark.parametrize("character", ["x", "é", "\n", "😀", "\x7f", "\ud800", '"', "\\"])
def test_what_is_too_long_is_cut_in_the_middle(character: str) -> None:
    """And is JSON all the same; what is short beside it stays whole."""
    event = event_of("begins %s a=%s b=%s", "w" * 50, character * 100_000, "short", exception="Traceback" + character * 9000 + "the end")
    assert event["message"] == "begins " + "w" * 50 and event["b"] == "short"
    assert event["exception"].startswith("Traceback") and event["exception"].endswith("the end") and fields.CUT in event["exception"]
    assert min(len(json.dumps(event[key])) for key in ("a", "exception")) > 1000, "each has its share"
    assert set(event["a"].replace(fields.CUT, "").replace("\\ud800", "\ud800")) <= {character, *"\\ud80"} and fields.CUT in event["a"]


@pytest.mark.parametrize("size", [*range(3950, 4120), 10**6])
def test_no_more_is_cut_than_must_be(size: int) -> None:
    whole = {"time": TIME, "a": "x" * size}
    line = fields.as_json(whole, 4000)
    if len(json.dumps(whole, separators=(",", ":"))) <= 4000:
        assert parsed(line) == whole
    else:
        assert 3990 <= len(line) <= 4000 and fields.CUT in parsed(line)["a"] and parsed(line)["time"] == TIME


def test_no_room_at_all_is_used_well() -> None:
    """Whatever stands where: it ends, and fits."""
    chance = random.Random(23)
    for _ in range(200):
        text = "".join(character * chance.randrange(3000) for character in chance.choices(["x", "😀", "\n", "é"], k=4))
        line = fields.as_json({"a": text, "b": text[::-1], "n": 1}, 200)
        assert len(line) <= 200 and set(json.loads(line)) == {"a", "b", "n"}


# -- every log call there is ---------------------------------------------------------------------------------------


def templates(node: ast.expr) -> list[str]:
    """What the first argument of a log call can be; it is made of constants alone."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return ["".join(pair) for pair in itertools.product(templates(left), templates(right))]
        case ast.IfExp(body=body, orelse=orelse):
            return templates(body) + templates(orelse)
    raise AssertionError(f"{node.lineno}: {ast.unparse(node)}: a template must be a constant")


def calls() -> list[tuple[str, ast.Call]]:
    found = []
    for path in sorted((ROOT / "hermes").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and "getLogger" in ast.unparse(node.value):
                assert ast.unparse(node.targets[0]) in ("log", "access", "logger"), f"{path.name}:{node.lineno}: by another name its calls are not found here"
            if isinstance(node, ast.Call) and re.fullmatch(r"(log|access|logger|logging\.getLogger\(.*\))\.(debug|info|warning|error|critical|exception|log)", ast.unparse(node.func)):
                found.append((f"{path.name}:{node.lineno}", node))
    return found


CALLS = calls()


@pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[place for place, _ in CALLS])
def test_every_event_is_words_and_then_fields(call: ast.Call) -> None:
    for template in templates(call.args[0]):
        words, known = fields.parts(template)
        keys = [key for key, _ in known]
        assert template == words + "".join(f" {key}={form}" for key, form in known) and "=" not in words, template
        assert len(set(keys)) == len(keys) and not set(keys) & set(fields.OWN), template
        if not any(isinstance(value, ast.Starred) for value in call.args):
            assert len(re.findall(r"%[^%]", template)) == len(call.args) - 1, template


def test_the_calls_are_found() -> None:
    assert len(CALLS) > 25 and any("request method" in text for _, call in CALLS for text in templates(call.args[0]))


@pytest.mark.parametrize("source", ['f"x {a}"', '"x" + a', "text", '"x %s" % a', '"x".format(a)'])
def test_a_template_that_is_made_of_something_is_found(source: str) -> None:
    with pytest.raises(AssertionError, match="constant"):
        templates(ast.parse(source, mode="eval").body)
