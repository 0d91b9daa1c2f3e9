"""The client's spelling in Ollama's answer: in every record, wherever reads cut it, and nowhere else."""

import json
import random
import time

import pytest

from hermes.workers.messages import Rename
from hermes.workers.renaming import Renamer, in_error

RENAME = Rename("model", "gemma3:270m", "Gemma")
OLD, NEW = b'"model":"gemma3:270m"', b'"model":"Gemma"'


def line(number: int, text: str = "x") -> bytes:
    return b'{"model":"gemma3:270m","created_at":"%d","response":%b,"done":false}\n' % (number, json.dumps(text).encode())


NATIVE = b"".join(line(number) for number in range(4))
TOOLS = (b'{"model":"gemma3:270m","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"ask","arguments":'
         b'{"model":"gemma3:270m"}}}]},"done":false}\n{"model":"gemma3:270m","done":true}\n')
OPENAI = (b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gemma3:270m","choices":[]}\n\n'
          b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","model":"gemma3:270m","choices":[]}\n\ndata: [DONE]\n\n')
ANTHROPIC = (b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","role":"assistant","model":"gemma3:270m","content":[]}}\n\n'
             b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
RESPONSES = (b'event: response.created\ndata: {"response":{"id":"resp_1","model":"gemma3:270m","output":[]},"type":"response.created"}\n\n'
             b'event: response.output_text.delta\ndata: {"delta":"\\"model\\":\\"gemma3:270m\\"","type":"response.output_text.delta"}\n\n'
             b'event: response.completed\ndata: {"response":{"model":"gemma3:270m","tools":[{"model":"gemma3:270m"}]},"type":"response.completed"}\n\n')
WHOLE = b'{"object":"list","data":[{"embedding":[0.1]}],"model":"gemma3:270m","usage":{}}'
BODIES = [NATIVE, TOOLS, OPENAI, ANTHROPIC, RESPONSES, WHOLE]


def expected(body: bytes) -> bytes:
    return b"\n".join(record.replace(OLD, NEW, 1) for record in body.split(b"\n"))


def renamed(*reads: bytes, rename: Rename = RENAME) -> bytes:
    renamer = Renamer(rename)
    return b"".join([*map(renamer.feed, reads), renamer.end()])


@pytest.mark.parametrize("body", BODIES)
def test_once_in_each_record(body: bytes) -> None:
    assert OLD in body and renamed(body) == expected(body) != body
    if body in (TOOLS, RESPONSES):
        assert expected(body).count(OLD) == 1, "what the model, or its tools, said stays"


@pytest.mark.parametrize("body", BODIES)
def test_every_cut(body: bytes) -> None:
    for cut in range(len(body) + 1):
        assert renamed(body[:cut], body[cut:]) == expected(body), cut
    assert renamed(*(body[at:at + 1] for at in range(len(body)))) == expected(body)


@pytest.mark.parametrize("seed", range(40))
def test_cuts_anywhere(seed: int) -> None:
    dice, body, reads, at = random.Random(seed), b"".join(BODIES), [], 0
    while at < len(body):
        size = dice.choice((1, 2, 3, 20, 21, 22, 300))
        reads.append(body[at:at + size])
        at += size
    assert renamed(*reads) == expected(body)


def test_many_records_in_one_read() -> None:
    body = b"".join(line(number) for number in range(5000))
    assert renamed(body) == body.replace(OLD, NEW)


def test_text_that_looks_like_it_stays() -> None:
    said = line(1, '"model":"gemma3:270m" and {"model":"gemma3:270m"}')
    assert renamed(said) == said.replace(OLD, NEW, 1) and said.count(OLD) == 1
    for other in (b'{"remote_model":"gemma3:270m"}\n', b'{"model":"gemma3:270m-q8"}\n', b'{"model":"Gemma3:270m"}\n', b'"model":"gemma3:270m'):
        assert renamed(other) == other


def test_a_whole_line_leaves_at_once() -> None:
    renamer = Renamer(RENAME)
    for number in range(3):
        assert renamer.feed(line(number)) == line(number).replace(OLD, NEW)
    assert renamer.feed(b'{"a":"b",') == b'{"a":"b",', "what cannot be the beginning of a match is not held back"
    assert renamer.feed(b'"mod') == b"" and renamer.feed(b'e":1}\n') == b'"mode":1}\n' and renamer.end() == b""


def test_a_longer_name_and_one_with_quotes_to_escape() -> None:
    assert renamed(WHOLE, rename=RENAME._replace(new='l"\u00e9\\')) == WHOLE.replace(OLD, b'"model":"l\\"\\u00e9\\\\"')
    assert renamed(b'{"id":"plain","model":"plain"}', rename=Rename("id", "plain", "P")) == b'{"id":"P","model":"plain"}'


@pytest.mark.parametrize("begin", [b'{"x":"', b'{"model":"gemma3:270m","x":"'])
def test_the_cost_of_a_long_line_is_linear(begin: bytes) -> None:
    """16 MiB in reads of 64 KiB, half of them ending in what could begin a match. A quadratic way would copy 2 GiB."""
    piece = b"y" * 65530 + b'"model'
    renamer = Renamer(RENAME)
    start = time.process_time()
    size = len(renamer.feed(begin)) + sum(len(renamer.feed(piece)) for _ in range(256)) + len(renamer.end())
    took = time.process_time() - start
    assert size == len(begin) + 256 * len(piece) - (len(OLD) - len(NEW)) * (OLD in begin)
    assert took < 2.0


@pytest.mark.parametrize(("text", "told"), [
    ("model 'gemma3:270m' not found", "model 'Gemma' not found"),
    ('model "gemma3:270m" not found, try pulling it first', 'model "Gemma" not found, try pulling it first'),
    ('"gemma3:270m" does not support chat', '"Gemma" does not support chat'),
    ("registry.ollama.ai/library/gemma3:270m does not support tools", "Gemma does not support tools"),
    ("see registry.ollama.ai/library/gemma3:270m.", "see Gemma."),
    ("/blobs/registry.ollama.ai/library/gemma3:270m", "/blobs/registry.ollama.ai/library/gemma3:270m"),
    ("registry.ollama.ai/library/gemma3:270m.5", "registry.ollama.ai/library/gemma3:270m.5"),
    ("gemma3:270m is a word here, 'gemma3:270m-q8' another", "gemma3:270m is a word here, 'gemma3:270m-q8' another"),
    ("'gemma3:270m\"", "'gemma3:270m\""),
])
def test_errors_speak_of_the_clients_name(text: str, told: str) -> None:
    for shape in ({"error": text}, {"error": {"message": text, "type": "not_found_error"}}):
        body = json.dumps(shape).encode()
        assert json.loads(in_error(body, RENAME)) == json.loads(json.dumps(shape).replace(json.dumps(text), json.dumps(told)))


def test_errors_name_the_tag_that_ollama_fills_in() -> None:
    rename = Rename("model", "plain", "mine")
    assert in_error(b"model 'plain:latest' not found", rename) == b"model 'mine' not found"
    assert in_error(b"model 'plain' not found", rename) == b"model 'mine' not found"
    assert in_error(b"registry.ollama.ai/library/Plain:latest does not", rename) == b"mine does not"
    assert in_error(b"model 'gemma3:270m:latest' not found", RENAME) == b"model 'gemma3:270m:latest' not found"
