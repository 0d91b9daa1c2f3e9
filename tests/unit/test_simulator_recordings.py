"""The stand-in against recordings of a real Ollama: same status, headers, framing and keys, in the same order."""

import json
import re
import socket
from pathlib import Path

import pytest

from hermes.simulator import Fault, Simulator

RECORDINGS = Path(__file__).parent.parent / "recordings"

NOT_SIMULATED = {"generate_logprobs"}
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.json") if path.stem not in NOT_SIMULATED)

STABLE_HEADERS = ("content-type", "allow", "location", "connection", "transfer-encoding")


def exchange(port: int, request: dict) -> bytes:
    """Sends a recorded request; everything that came back until the server closed."""
    lines = [f"{request['method']} {request['path']} HTTP/1.1", *(f"{k}: {v}" for k, v in request["headers"].items())]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall("\r\n".join([*lines, "", request["body"]]).encode("utf-8"))
        return b"".join(iter(lambda: client.recv(65536), b""))


def split(answer: bytes) -> tuple[str, list[tuple[str, str]], list[bytes]]:
    """Status line, headers, and the pieces of the body: HTTP chunks, or the whole."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines]
    if ("Transfer-Encoding", "chunked") not in headers:
        return status, headers, [body]
    pieces = []
    while True:
        size, _, body = body.partition(b"\r\n")
        count = int(size, 16)
        assert body[count: count + 2] == b"\r\n"
        if not count:
            assert body == b"\r\n"
            return status, headers, pieces
        pieces.append(body[:count])
        body = body[count + 2:]


def records(piece: bytes) -> list[object]:
    """The skeletons of the records in a piece of a body."""
    text = piece.decode("utf-8")
    if text.startswith(("data: ", "event: ")):
        assert text.endswith("\n\n")
        return [[line if line.startswith("event: ") else skeleton(line.removeprefix("data: ")) for line in event.split("\n")]
                for event in text[:-2].split("\n\n")]
    if text.startswith("{"):
        return [skeleton(text), text.endswith("\n")]
    return [text]


def skeleton(text: str) -> object:
    return text if text == "[DONE]" else shape(json.loads(text))


def shape(value: object) -> object:
    """Keys in order and kinds of values; lists without their length."""
    if isinstance(value, dict):
        return [(key, shape(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return collapse([shape(inner) for inner in value])
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def collapse(items: list) -> list:
    """Runs of equal items become one."""
    return [item for index, item in enumerate(items) if index == 0 or item != items[index - 1]]


def load(name: str) -> tuple[dict, bytes]:
    recording = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
    response = recording["response"]
    text = response["raw_head"] + "".join(read for _, read in response["reads"])
    return recording["request"], text.encode("latin-1")


def prepare(sim: Simulator, name: str, request: dict) -> None:
    """Brings the stand-in into the state that Ollama was in."""
    if name.startswith("cut_"):
        sim.script(Fault(error_line=True))
    if name == "ps_loaded":
        exchange(sim.port, load("load")[0])
    if name.startswith("pull_offline"):
        request["body"] = request["body"].replace("llama3.2:1b", "nothere:1bc")
    if name == "delete":
        sim.install("copied")
    if name == "err_too_long":
        message = {"role": "user", "content": "word " * 9000}
        request["body"] = json.dumps({"model": "smollm2:135m", "messages": [message]})
        request["headers"]["Content-Length"] = str(len(request["body"]))


@pytest.mark.parametrize("name", NAMES)
def test_answers_as_recorded(name: str) -> None:
    request, recorded = load(name)
    with Simulator() as sim:
        prepare(sim, name, request)
        status, headers, pieces = split(exchange(sim.port, request))
    want_status, want_headers, want_pieces = split(recorded)
    assert status == want_status
    assert [header for header, _ in headers] == [header for header, _ in want_headers]
    assert stable(headers) == stable(want_headers)
    if name.startswith("show"):
        pieces, want_pieces = ([top_level(piece) for piece in both] for both in (pieces, want_pieces))
        assert pieces == want_pieces
    elif name.startswith("err_"):
        assert [without_id(piece) for piece in pieces] == [without_id(piece) for piece in want_pieces]
    else:
        assert collapse([records(piece) for piece in pieces]) == collapse([records(piece) for piece in want_pieces])


def stable(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() in STABLE_HEADERS]


def without_id(piece: bytes) -> bytes:
    return re.sub(rb"req_[0-9a-f]{24}", b"req", piece)


def top_level(piece: bytes) -> list[str]:
    return list(json.loads(piece))
