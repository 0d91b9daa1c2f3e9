"""Token by token or many at a time, cut or whole: the same bytes leave, and the same verdict."""

import random

import pytest

from hermes.errors import UpstreamError
from hermes.workers.chunks import chunk
from hermes.workers.messages import End, Failure, FrameReader, Head, Job, Kind, Rename, unpack
from hermes.workers.relay import BURST, HOLD_BODY, Relay, plain_size
from hermes.workers.renaming import RenamingRelay
from hermes.workers.reply import Reply

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
LINES = [b'{"response":"%d","done":false}\n' % number for number in range(6)]
LAST = b'{"response":"","done":true,"prompt_eval_count":3,"eval_count":6}\n'
BODY = b"".join(map(chunk, LINES)) + chunk(LAST) + b"0\r\n\r\n"


class Scripted:
    """A socket and its watch: each read as written down, `waited` seconds after it was asked for."""

    def __init__(self, reads: list[bytes], waited: float):
        self._reads = list(reads)
        self._waited = waited
        self.asked = 0.0

    def recv(self, _: int) -> bytes:
        import time
        self.asked = time.monotonic() - self._waited
        return self._reads.pop(0) if self._reads else b""

    def phase(self, *_: object, **__: object) -> None:
        pass


def relayed(reads: list[bytes], waited: float = 1.0, ending: str = "done") -> tuple[bytes, object, int]:
    """What a client gets, what is said of it, and how many frames it took."""
    scripted, sent = Scripted([HEAD, *reads], waited), []
    reply = Reply(scripted, "POST")
    reply.begin()
    closing = Relay(Job("http://x", "POST", "/api/generate", ending=ending), reply, scripted, sent.append).run()
    frames = FrameReader().feed(b"".join([*sent, closing]))
    assert isinstance(unpack(*frames[0]), Head)
    return b"".join(data for kind, data in frames if kind == Kind.DATA), unpack(*frames[-1]), len(frames)


@pytest.mark.parametrize("waited", [1.0, 0.0])
def test_each_token_leaves_as_it_came(waited: float) -> None:
    data, end, frames = relayed([*map(chunk, LINES), chunk(LAST), b"0\r\n\r\n"], waited)
    assert data == BODY[:-5] and end.output_tokens == 6
    assert frames == len(LINES) + 3


@pytest.mark.parametrize("waited", [1.0, BURST / 100])
@pytest.mark.parametrize("seed", range(60))
def test_any_cut_of_the_bytes_gives_the_same_answer(seed: int, waited: float) -> None:
    dice, reads, at = random.Random(seed), [], 0
    while at < len(BODY):
        size = dice.choice((1, 2, 7, 37, 38, 39, 200))
        reads.append(BODY[at:at + size])
        at += size
    data, end, _ = relayed(reads, waited)
    assert data == BODY[:-5] and end.output_tokens == 6


@pytest.mark.parametrize("waited", [1.0, 0.0])
@pytest.mark.parametrize("reads", [[chunk(LINES[0]), b"0\r\n\r\n"], [chunk(LINES[0]), chunk(b'{"error":"x"}\n'), b"0\r\n\r\n"]])
def test_a_stream_without_its_last_record_has_failed(reads: list[bytes], waited: float) -> None:
    _, failure, _ = relayed(reads, waited)
    assert isinstance(failure, Failure) and failure.told is (len(reads) == 3)


@pytest.mark.parametrize("bad", [b"0x5\r\n{}\r\r\n\r\n", b"+5\r\n{}\r\r\n\r\n", b"1_0\r\n" + b"x" * 15 + b"\n\r\n", b"2\r\n{}\r\n\n\r\n", b" a\r\n123456789\n\r\n"])
def test_a_malformed_chunk_is_no_token(bad: bytes) -> None:
    with pytest.raises(UpstreamError):
        relayed([chunk(LINES[0]), bad, chunk(LAST), b"0\r\n\r\n"])


def test_an_extension_is_dropped_and_a_cut_is_told() -> None:
    token = chunk(LINES[1])
    data, _, _ = relayed([chunk(LINES[0]), token.replace(b"\r\n", b";a\r\n", 1), chunk(LAST), b"0\r\n\r\n"])
    assert data == chunk(LINES[0]) + token + chunk(LAST)
    with pytest.raises(EOFError):
        relayed([chunk(LINES[0]), chunk(LINES[1])])


def test_blank_lines_replace_no_record() -> None:
    data, end, _ = relayed([chunk(LINES[0]), chunk(LAST), chunk(b"\n"), b"0\r\n\r\n"])
    assert end.output_tokens == 6 and data.endswith(chunk(b"\n"))


@pytest.mark.parametrize("cuts", [[5], [20], [5, 20], [len(LAST) - 1]])
def test_a_record_in_several_chunks_is_read_whole(cuts: list[int]) -> None:
    bounds = [0, *cuts, len(LAST)]
    last = [chunk(LAST[a:b]) for a, b in zip(bounds, bounds[1:])]
    _, end, _ = relayed([chunk(LINES[0]), *last, b"0\r\n\r\n"])
    assert end.output_tokens == 6
    halves = [chunk(LINES[0][:9]), chunk(LINES[0][9:])]
    assert relayed([*halves, chunk(LAST), b"0\r\n\r\n"])[1].output_tokens == 6


def test_openai_stream_of_events() -> None:
    events = [chunk(b'data: {"choices":[]}\n\n'), chunk(b"data: [DONE]\n\n")]
    assert not isinstance(relayed([*events, b"0\r\n\r\n"], ending="[DONE]")[1], Failure)
    assert isinstance(relayed([events[0], b"0\r\n\r\n"], ending="[DONE]")[1], Failure)


@pytest.mark.parametrize("waited", [1.0, 0.0])
@pytest.mark.parametrize(("ending", "events"), [
    ("[DONE]", [b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number for number in range(4)]
     + [b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":6}}\n\n', b"data: [DONE]\n\n"]),
    ("message_stop", [b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"%d"}}\n\n' % number for number in range(4)]
     + [b'event: message_delta\ndata: {"type":"message_delta","usage":{"input_tokens":3,"output_tokens":6}}\n\n', b'event: message_stop\ndata: {"type":"message_stop"}\n\n']),
], ids=["openai", "anthropic"])
def test_figures_stand_in_the_event_before_the_last(ending: str, events: list[bytes], waited: float) -> None:
    """However the events were cut into reads."""
    chunks = [*map(chunk, events), b"0\r\n\r\n"]
    for reads in (chunks, [*chunks[:3], b"".join(chunks[3:])], [*chunks[:-3], b"".join(chunks[-3:-1]), chunks[-1]], [b"".join(chunks)],
                  [*chunks[:-2], b"".join(chunks[-2:])]):
        end = relayed(reads, waited, ending)[1]
        assert (end.input_tokens, end.output_tokens) == (3, 6), reads
    assert isinstance(relayed([*chunks[:-2], chunks[-1]], waited, ending)[1], Failure)


@pytest.mark.parametrize(("line", "size"), [(b"a", 10), (b"FF", 255), (b"0", -1), (b"00", -1), (b"", -1), (b"1_0", -1), (b"+1", -1), (b"1;x", -1), (b" 1", -1)])
def test_plain_size(line: bytes, size: int) -> None:
    assert plain_size(line) == size


# -- the client's own spelling -------------------------------------------------------------------------------------

NAMED = [b'{"model":"m:1b","response":"%d","done":false}\n' % number for number in range(6)]
NAMED_LAST = b'{"model":"m:1b","response":"","done":true,"prompt_eval_count":3,"eval_count":6}\n'
SPELT = b"".join([*NAMED, NAMED_LAST]).replace(b"m:1b", b"My-Model")
PLAIN = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\n"


def spelt(head: bytes, reads: list[bytes], method: str = "POST", waited: float = 1.0) -> tuple[Head, bytes, object, int]:
    """The head, the body, what is said of it, and in how many frames."""
    scripted, sent = Scripted([head, *reads], waited), []
    reply = Reply(scripted, method)
    reply.begin()
    job = Job("http://x", method, "/api/generate", ending="done", rename=Rename("model", "m:1b", "My-Model"))
    closing = RenamingRelay(job, reply, scripted, sent.append).run()
    frames = FrameReader().feed(b"".join([*sent, closing]))
    return unpack(*frames[0]), b"".join(data for kind, data in frames if kind == Kind.DATA), unpack(*frames[-1]), len(frames)


@pytest.mark.parametrize("waited", [1.0, 0.0])
def test_a_stream_in_the_clients_spelling(waited: float) -> None:
    head, data, end, frames = spelt(HEAD, [*map(chunk, NAMED), chunk(NAMED_LAST), b"0\r\n\r\n"], waited=waited)
    assert (head.status, head.framing) == (200, "plain")
    assert data == SPELT and end.output_tokens == 6
    assert frames == len(NAMED) + 3, "a token travels alone here too"


@pytest.mark.parametrize("size", [1, 7, 40, 61, 100_000])
def test_a_stream_in_the_clients_spelling_however_it_is_cut(size: int) -> None:
    """Chunks that end anywhere (ollama-api.md §3.7), and reads that end anywhere."""
    body = b"".join([*NAMED, NAMED_LAST])
    coded = b"".join(chunk(body[at:at + 33]) for at in range(0, len(body), 33)) + b"0\r\n\r\n"
    _, data, end, _ = spelt(HEAD, [coded[at:at + size] for at in range(0, len(coded), size)])
    assert data == SPELT and end.output_tokens == 6
    with pytest.raises(EOFError):
        spelt(HEAD, [coded[:-5]])
    assert isinstance(spelt(HEAD, [chunk(NAMED[0]), b"0\r\n\r\n"])[2], Failure)


@pytest.mark.parametrize("cuts", [[], [5], [20, 21], [1, 2, 3]])
def test_a_small_answer_keeps_a_length(cuts: list[int]) -> None:
    bounds = [0, *cuts, len(NAMED_LAST)]
    reads = [NAMED_LAST[a:b] for a, b in zip(bounds, bounds[1:])]
    told = NAMED_LAST.replace(b"m:1b", b"My-Model")
    for framing, body in ((b"Content-Length: %d\r\n\r\n" % len(NAMED_LAST), reads), (b"Transfer-Encoding: chunked\r\n\r\n", [*map(chunk, reads), b"0\r\n\r\n"]),
                          (b"\r\n", reads)):
        head, data, end, _ = spelt(PLAIN % 200 + framing, body)
        assert (head.framing, head.length, data, end) == ("length", len(told), told, End(3, 6)), framing


@pytest.mark.parametrize("name_at", ["front", "back"])
def test_a_large_answer_has_no_length(name_at: str) -> None:
    vectors = b'"embeddings":[[' + b"0.12345678," * (HOLD_BODY // 10) + b"1]]"
    body = b"{%b,%b}" % ((b'"model":"m:1b"', vectors) if name_at == "front" else (vectors, b'"model":"m:1b"'))
    reads = [body[at:at + 65536] for at in range(0, len(body), 65536)]
    head, data, end, _ = spelt(PLAIN % 200 + b"Content-Length: %d\r\n\r\n" % len(body), reads)
    assert (head.framing, head.length, end) == ("plain", 0, End())
    assert data == body.replace(b"m:1b", b"My-Model")
    pieces = [*map(chunk, reads[:-1]), chunk(reads[-1]) + b"0\r\n\r\n"]
    head, data, _, _ = spelt(PLAIN % 200 + b"Transfer-Encoding: chunked\r\n\r\n", pieces)
    assert (head.framing, head.length, data) == ("plain", 0, body.replace(b"m:1b", b"My-Model"))


def test_an_error_in_the_clients_spelling() -> None:
    body = b'{"error":"model \'m:1b\' not found"}'
    head, data, end, _ = spelt(PLAIN % 404 + b"Content-Length: %d\r\n\r\n" % len(body), [body])
    assert (head.status, head.length, data, end) == (404, len(data), body.replace(b"m:1b", b"My-Model"), End())
    kept = b'{"model":"m:1b","response":"a \'m:1b\'"}'
    assert spelt(PLAIN % 200 + b"Content-Length: %d\r\n\r\n" % len(kept), [kept])[1] == kept.replace(b'"m:1b"', b'"My-Model"'), "an answer is no error"


@pytest.mark.parametrize("framing", [b"Content-Length: 12\r\n\r\n", b"\r\n"])
def test_an_end_that_could_have_been_a_beginning(framing: bytes) -> None:
    assert spelt(PLAIN % 502 + framing, [b'not "model":'])[1] == b'not "model":'


def test_an_answer_without_a_body_keeps_its_length() -> None:
    head, data, end, _ = spelt(PLAIN % 200 + b"Content-Length: 77\r\n\r\n", [], "HEAD")
    assert (head.framing, head.length, data, end) == ("length", 77, b"", End())
    head, data, _, _ = spelt(PLAIN % 200 + b"Content-Length: 0\r\n\r\n", [])
    assert (head.framing, data) == ("plain", b"")
