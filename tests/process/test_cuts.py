"""The recorded answers, cut at every byte: no cut is ever reported as success, and what came before it is exact.

Hermes runs as it does, and the stand-in plays the recording; one upstream connection a cut. The answer goes over chunked coding and
over Content-Length, streamed and not, ended by FIN and by RST.
"""

import json

import pytest

from hermes.frontend.http1 import chunk
from hermes.simulator import Fault, Simulator
from tests.harness import ROOT, Client, Hermes, eventually, post

CONFIG = '[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 1\n[models.g]\nmodel = "gemma3:270m"\n'


def recording(name: str) -> tuple[bytes, bytes]:
    """Head and body of an answer as they came off the socket."""
    response = json.loads((ROOT / "tests/recordings" / f"{name}.json").read_text(encoding="utf-8"))["response"]
    return response["raw_head"].encode("latin-1"), "".join(data for _, data in response["reads"]).encode("latin-1")


def dechunk(coded: bytes) -> bytes:
    body = b""
    while coded:
        line, _, coded = coded.partition(b"\r\n")
        body, coded = body + coded[:int(line, 16)], coded[int(line, 16) + 2:]
    return body


CASES = {
    "chat_stream": ("/api/chat", {"model": "smollm2:135m", "messages": [{"role": "user", "content": "x"}]}),
    "chat": ("/api/chat", {"model": "smollm2:135m", "messages": [{"role": "user", "content": "x"}], "stream": False}),
    "openai_chat_stream": ("/v1/chat/completions", {"model": "smollm2:135m", "messages": [{"role": "user", "content": "x"}], "stream": True}),
    "openai_embeddings_base64": ("/v1/embeddings", {"model": "smollm2:135m", "input": "x"}),
    "messages_stream": ("/v1/messages", {"model": "smollm2:135m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 8, "stream": True}),
    "openai_responses_stream": ("/v1/responses", {"model": "smollm2:135m", "input": "x", "stream": True}),
}
STRIDE = {"messages_stream": 3, "openai_responses_stream": 11}      # bytes between two cuts, where records repeat one another
# How an error inside a stream begins, by path: what makes that family's libraries raise.
RECORD = {"/api/chat": b'{"error":"', "/api/generate": b'{"error":"', "/v1/chat/completions": b'data: {"error":{"message":', "/v1/completions": b'data: {"error":{"message":',
          "/v1/messages": b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":', "/v1/responses": b'event: error\ndata: {"type":"error",'}
DIED = {"cut_chat": "/api/chat", "cut_generate": "/api/generate", "cut_openai_chat": "/v1/chat/completions", "cut_openai_completions": "/v1/completions",
        "cut_messages": "/v1/messages", "cut_openai_responses": "/v1/responses"}


@pytest.mark.parametrize(("by", "model"), [("fin", "smollm2:135m"), ("rst", "smollm2:135m"), ("fin", "m")])
@pytest.mark.parametrize("name", list(CASES))
def test_no_cut_is_success(name: str, by: str, model: str) -> None:
    """C5. Under Ollama's name for the model, and under the configuration's own."""
    head, coded = recording(name)
    whole = head + coded
    body = dechunk(coded) if b"chunked" in head else coded
    path, request = CASES[name][0], {**CASES[name][1], "model": model}
    body = body.replace(b'"model":"smollm2:135m"', b'"model":"%b"' % model.encode())
    stream = b"ndjson" in head or b"event-stream" in head
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        eventually(lambda: hermes.staffed("m"))
        silent, told = 0, 0
        # The other way to close, and the other name, change what happens at a cut and not where one may be: every third byte will do.
        stride = STRIDE.get(name, 1) * (1 if (by, model) == ("fin", "smollm2:135m") else 3)
        cuts = [*range(0, len(whole) - 100, stride), *range(max(0, len(whole) - 100), len(whole))]
        for cut in cuts:
            ollama.script(Fault(raw=whole, cut=cut, by=by), path=path, times=1)
            reply = post(hermes.port, path, request)
            silent += reply.status == 200 and reply.complete
            if reply.status == 200:
                assert stream, f"cut {cut}: a whole answer was begun before it was whole"
                delivered, mark, _ = reply.body.rpartition(RECORD[path])
                assert body.startswith(delivered if mark else reply.body), cut
                told += bool(mark)
            else:
                assert reply.status == 502 and reply.complete and reply.json()["error"], (cut, reply)
                told += 1
        assert (silent, told) == (0, len(cuts))
        reply = post(hermes.port, path, request)        # and the worker serves on
        assert reply.complete
        assert hermes.model("m")["restarts"] == 0


@pytest.mark.parametrize("name", DIED)
def test_a_runner_that_died_is_told_where_ollama_says_nothing(name: str) -> None:
    """Recorded while the model's runner was killed: Ollama ended each stream cleanly, and only its native ones with a word."""
    head, coded = recording(name)
    body, path = dechunk(coded), DIED[name]
    request = {"model": "gemma3:270m", "prompt": "x", "input": "x", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        ollama.script(Fault(raw=head + coded), path=path)
        reply = post(hermes.port, path, request)
        assert reply.status == 200 and not reply.complete and reply.body.startswith(body)
        ours = reply.body[len(body):]
        if path.startswith("/api/"):
            assert ours == b"" and RECORD[path] in body
        else:
            assert ours.startswith(RECORD[path]) and ours.endswith(b"}\n\n") and ours.count(b"\n\n") == 1
            error = json.loads(ours.split(b"data: ")[1])
            assert error["error"]["message"] == "Ollama's answer ended without its final record"
            assert error.get("request_id", reply.headers["x-request-id"]) == reply.headers["x-request-id"]
        assert eventually(lambda: hermes.line("outcome=upstream_"))


def test_until_close_framing_counts_only_with_its_last_record() -> None:
    """An answer that ends with the connection, as HTTP/1.0 servers send it."""
    _, coded = recording("chat_stream")
    body = dechunk(coded)
    head = b"HTTP/1.0 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"
    path, request = CASES["chat_stream"]
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        for cut in [*range(len(head), len(head) + len(body) - 1, 7), len(head) + len(body)]:
            ollama.script(Fault(raw=head + body, cut=cut), path=path, times=1)
            reply = post(hermes.port, path, request)
            whole = cut == len(head) + len(body)
            assert (reply.status == 200 and reply.complete) == whole
            assert (reply.body == body) if whole else b'"error"' in reply.body


@pytest.mark.parametrize("raw", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
    b"HTTP/2 200 OK\r\n\r\n", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 150 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 80_000 + b"\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
], ids=["two framings", "signed length", "unknown coding", "http/2", "no http", "150 headers", "80 KB header", "redirect", "0x", "no line end", "half an end"])
def test_an_answer_that_is_not_http_is_a_502(raw: bytes) -> None:
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        ollama.script(Fault(raw=raw), path="/api/chat", times=1)
        reply = post(hermes.port, "/api/chat", CASES["chat"][1])
        assert (reply.status, reply.complete) == (502, True) and reply.json()["error"]


def test_a_chunk_extension_a_trailer_and_a_chunk_that_looks_like_an_end() -> None:
    line = b'{"response":"0\\r\\n\\r\\n","done":false}\n0\r\n\r\n'
    last = b'{"response":"","done":true,"done_reason":"stop"}\n'
    coded = b"%X;a=b\r\n%b\r\n00%x\r\n%b\r\n0;x\r\nTrailer: y\r\n\r\n" % (len(line), line, len(last), last)
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n" + coded
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        ollama.script(Fault(raw=raw), path="/api/generate", times=2)
        for fault in (None, 0.0005):
            if fault:
                ollama.script(Fault(raw=raw, drip=fault), path="/api/generate", times=1)
            reply = post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"})
            assert reply.complete and reply.body == line + last


@pytest.mark.parametrize("fault", [Fault(no_done=True), Fault(error_line=True)], ids=["no done", "error line"])
@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions", "/v1/llm/m"])
def test_a_stream_that_ollama_ends_cleanly_without_its_last_record_is_a_failure(path: str, fault: Fault) -> None:
    body: dict = {"prompt": "x", "stream": True}
    if path != "/v1/llm/m":
        body |= {"model": "smollm2:135m", "messages": [{"role": "user", "content": "x"}]}
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        ollama.script(fault)
        reply = post(hermes.port, path, body)
        assert reply.body.count(b'"error"') == 1
        assert reply.status == 502 or reply.status == 200 and not reply.complete     # 502 if it failed before anything had gone out


def test_one_dot_zero_clients_get_a_body_that_ends_with_the_connection() -> None:
    with Simulator(keep_bodies=True) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        data = json.dumps({"model": "smollm2:135m", "prompt": "x"}).encode()
        with Client(hermes.port) as client:
            client.send_raw(b"POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))
            reply = client.reply()
        assert "transfer-encoding" not in reply.headers and reply.body == ollama.requests[-1].sent


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("model", ["smollm2:135m", "m"])
@pytest.mark.parametrize("name", ["chat_stream", "openai_chat_stream", "messages_stream", "openai_responses_stream"])
def test_an_error_behind_half_a_record_has_a_line_of_its_own(name: str, model: str, version: str) -> None:
    """Chunks and records need not coincide: those of cloud models do not."""
    head, coded = recording(name)
    body, (path, request) = dechunk(coded), CASES[name]
    renamed = body.replace(b"smollm2:135m", model.encode())
    asked = json.dumps({**request, "model": model}).encode()
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        for size in range(300, 330):
            halves = b"".join(chunk(body[at:at + size]) for at in (0, size))
            ollama.script(Fault(raw=head + halves), path=path, times=1)
            with Client(hermes.port) as client:
                client.send_raw(b"POST %b HTTP/%b\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), version.encode(), len(asked), asked))
                reply = client.reply()
            delivered, mark, _ = reply.body.rpartition(RECORD[path])
            end = b"\n\n" if path.startswith("/v1/") else b"\n"
            assert reply.status == 200 and mark and delivered.endswith(end), (size, reply.body[-300:])
            assert path.startswith("/v1/") or b"\n\n" not in delivered, "an empty line breaks ollama-python"
            assert renamed.startswith((delivered, delivered.removesuffix(end)))
