"""Did the stream end as a success ends? The last record says so, whatever way the chunks cut it."""

import json
import random
import tracemalloc
from pathlib import Path

import pytest

from hermes.errors import UpstreamBroken
from hermes.workers import endings
from hermes.workers.endings import LINE_MAX, LastRecord, figures, figures_of, judge, shortened
from hermes.workers.messages import End, Failure


def last_of(*payloads: bytes, coded: bool = False) -> bytes:
    """What is kept of a stream that came in these pieces, each a chunk if it is coded."""
    record = LastRecord(coded)
    for payload in payloads:
        record.note(b"%x\r\n%b\r\n" % (len(payload), payload) if coded else payload)
    return record.payload()


DONE = b'{"done":true,"load_duration":2500000000,"prompt_eval_count":5,"eval_count":7}'
OPENAI = (b'data: {"choices":[{"delta":{}}]}\n\ndata: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":8}}\n\n'
          b"data: [DONE]\n\n")
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
DELTA = b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":12,"output_tokens":8}}\n\n'
BROKEN, FAILED = "UpstreamBroken", "UpstreamFailed"


def responses(status: str, error: object = None) -> bytes:
    """The event with which a response becomes `status`."""
    usage = {"input_tokens": 12, "output_tokens": 8, "total_tokens": 20}
    data = {"type": f"response.{status}", "sequence_number": 7, "response": {"id": "resp_1", "status": status, "error": error, "usage": usage}}
    return b"event: response.%b\ndata: %b\n\n" % (status.encode(), json.dumps(data).encode())


@pytest.mark.parametrize(("ending", "payload", "expected"), [
    ("done", DONE + b"\n", End(5, 7, 2.5)),
    ("done", DONE, End(5, 7, 2.5)),
    ("done", DONE + b"\r\n\r\n", End(5, 7, 2.5)),
    ("done", b'{"done":false}\n' + DONE + b"\n", End(5, 7, 2.5)),
    ("done", b'{"done":true}\n', End(0, 0)),
    ("done", b'{"done":true,"eval_count":"7","prompt_eval_count":1.5,"load_duration":"1"}', End()),
    ("done", b'{"done":true,"eval_count":true}', End(0, None)),
    ("done", b"", BROKEN),
    ("done", b"\n\n", BROKEN),
    ("done", b'{"done":false}\n', BROKEN),
    ("done", b'{"done":"true"}\n', BROKEN),
    ("done", b'{"done":1}\n', BROKEN),
    ("done", DONE[:-1], BROKEN),
    ("done", DONE + b"\n" + DONE[:-1], BROKEN),
    ("done", b'["done"]\n', BROKEN),
    ("done", b'"done"\n', BROKEN),
    ("done", b"[" * 100_000, BROKEN),
    ("done", b"\xff\xfe\n", BROKEN),
    ("done", b'{"status":"success"}\n', BROKEN),
    ("done", b'{"error":"out of memory"}\n', FAILED),
    ("done", b'{"error":"out of memory","done":true}\n', FAILED),
    ("done", b'{"error":{"message":"out of memory"}}\n', FAILED),
    ("success", b'{"status":"verifying"}\n{"status":"success"}\n', End()),
    ("success", b'{"status":"verifying"}\n', BROKEN),
    ("success", b'{"error":"out of memory"}\n', FAILED),
    ("[DONE]", OPENAI, End(12, 8)),
    ("[DONE]", b'data: {"usage":{"prompt_tokens":0,"completion_tokens":0}}\n\n' + OPENAI, End(12, 8)),
    ("[DONE]", b"data: [DONE]\n\n", End()),
    ("[DONE]", b"data: [DONE]\r\n\r\n", End()),
    ("[DONE]", b'data: {"choices":[]}\n\n', BROKEN),
    ("[DONE]", b"data: [DON", BROKEN),
    ("[DONE]", b"[DONE]\n\n", BROKEN),
    ("[DONE]", b"", BROKEN),
    ("[DONE]", b'data: {"error":{"message":"out of memory","type":"api_error"}}\n\n', FAILED),
    ("[DONE]", b'data: {"error":{"message":"out of memory"}}\n\ndata: [DONE]\n\n', FAILED),
    ("[DONE]", b'data: {"usage":{"prompt_tokens":0,"completion_tokens":0}}\n\n' + OPENAI, End(12, 8)),
    ("[DONE]", STOP, BROKEN),
    ("message_stop", STOP, End()),
    ("message_stop", STOP.rstrip(), End()),
    ("message_stop", STOP.replace(b"\n", b"\r\n"), End()),
    ("message_stop", b'data: {"type":"message_stop"}\n\n', End()),
    ("message_stop", DELTA + STOP, End(12, 8)),
    ("message_stop", b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":0}}}\n\n' + STOP, End()),
    ("message_stop", DELTA, BROKEN),
    ("message_stop", STOP + DELTA, BROKEN),
    ("message_stop", STOP[:-5], BROKEN),
    ("message_stop", b"event: message_stop\n\n", BROKEN),
    ("message_stop", b'{"type":"message_stop"}\n\n', BROKEN),
    ("message_stop", b"data: [DONE]\n\n", BROKEN),
    ("message_stop", b"", BROKEN),
    ("message_stop", b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"out of memory"}}\n\n', FAILED),
    ("message_stop", b'event: error\ndata: {"type":"error","message":"out of memory"}\n\n' + STOP, FAILED),
    ("response.completed", responses("completed"), End(12, 8)),
    ("response.completed", responses("incomplete"), End(12, 8)),
    ("response.completed", b'data: {"type":"response.completed"}\n\n', End()),
    ("response.completed", b'data: {"type":"response.completed","response":7}\n\n', End()),
    ("response.completed", responses("in_progress"), BROKEN),
    ("response.completed", responses("completed")[:-4], BROKEN),
    ("response.completed", b"", BROKEN),
    ("response.completed", responses("failed", {"code": "server_error", "message": "out of memory"}), FAILED),
    ("response.completed", b'event: error\ndata: {"type":"error","code":null,"message":"out of memory","param":null}\n\n', FAILED),
    ("response.completed", b'event: error\ndata: {"type":"error","error":{"message":"out of memory"}}\n\n', FAILED),
])
def test_judge(ending: str, payload: bytes, expected) -> None:
    verdict = judge(ending, payload)
    if expected == FAILED:
        assert verdict == Failure(FAILED, "out of memory", told=True)
    elif expected == BROKEN:
        assert isinstance(verdict, Failure) and (verdict.error, verdict.told) == (BROKEN, False)
    else:
        assert verdict == expected


def test_a_failed_response_that_does_not_say_why() -> None:
    assert judge("response.completed", responses("failed")) == Failure(FAILED, "the response failed", told=True)


def test_an_absurd_number_does_not_end_the_worker() -> None:
    """A JSON integer may be larger than any float."""
    assert judge("done", b'{"done":true,"load_duration":1' + b"0" * 400 + b"}") == End(0, 0)


def test_an_endless_error_text_is_cut() -> None:
    assert len(judge("done", json.dumps({"error": "x" * 10_000}).encode()).text) == 1000


@pytest.mark.parametrize("coded", [False, True])
def test_last_record_of_every_cut(coded: bool) -> None:
    stream = b'{"response":"a\\n","done":false}\n{"response":"","done":true,"eval_count":7}\n'
    for first in range(1, len(stream) - 1):
        for second in (first + 1, len(stream) - 1):
            pieces = [stream[:first], stream[first:second], stream[second:]]
            assert judge("done", last_of(*filter(None, pieces), coded=coded)) == End(0, 7), pieces
    assert judge("done", last_of(*(stream[i:i + 1] for i in range(len(stream))), coded=coded)) == End(0, 7)


RECORDED = {"messages_stream": "message_stop", "openai_responses_stream": "response.completed", "openai_chat_stream": "[DONE]",
            "openai_completions_stream": "[DONE]", "chat_stream": "done"}
CUT = {"cut_messages": "message_stop", "cut_openai_responses": "response.completed", "cut_openai_chat": "[DONE]", "cut_openai_completions": "[DONE]"}


@pytest.mark.parametrize("name", [*RECORDED, *CUT])
def test_recorded_streams(name: str) -> None:
    """As Ollama sent them, read by read: whole ones succeed with their figures, and those whose runner died do not."""
    text = Path(__file__).parents[1].joinpath("recordings", f"{name}.json").read_text(encoding="utf-8")
    reads = [data.encode().removesuffix(b"0\r\n\r\n") for _, data in json.loads(text)["response"]["reads"]]
    record = LastRecord(coded=True)
    for data in filter(None, reads):
        record.note(data)
    verdict = judge((RECORDED | CUT)[name], record.payload())
    if name in CUT:
        assert isinstance(verdict, Failure) and (verdict.error, verdict.told) == (BROKEN, False)
    else:
        assert isinstance(verdict, End)
        assert (verdict.output_tokens == 8) == (b"usage" in b"".join(reads) or name == "chat_stream"), verdict


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("tail", [b"\n", b"\r\n"])
def test_empty_line_behind_the_record(tail: bytes, coded: bool) -> None:
    assert judge("done", last_of(DONE + b"\n", tail, coded=coded)) == End(5, 7, 2.5)


@pytest.mark.parametrize("coded", [False, True])
def test_old_records_are_not_kept(coded: bool) -> None:
    kept = last_of(*[b'{"done":false}\n'] * 100_000, DONE + b"\n", coded=coded)
    assert kept.endswith(DONE + b"\n") and len(kept) < 1000


def test_one_line_may_not_grow_for_ever() -> None:
    with pytest.raises(UpstreamBroken):
        last_of(*[b"x" * (1 << 20)] * ((LINE_MAX >> 20) + 1))


@pytest.mark.parametrize(("record", "short"), [
    (b'{"a":"' + b"x" * 5000 + b'","b":7}', b'{"a":"' + b"x" * 1000 + b'","b":7}'),
    (b'{"a":"' + b"x" * 5000, b'{"a":"' + b"x" * 1000),
    (b'{"a":"' + b"\\u00e9" * 5000 + b'\\"","b":7}', b'{"a":"' + b"\\u00e9" * 1000 + b'","b":7}'),
    (b'{"a":"' + b"x" * 5000 + b"\\", b'{"a":"' + b"x" * 1000 + b"\\"),
    (b'{"a":"' + b"x" * 5000 + b"\\u00e", b'{"a":"' + b"x" * 1000 + b"\\u00e"),
    (b'{"a":[' + b"1,-2.5e3," * 500 + b'333],"b":[],"c":[7]}', b'{"a":[333],"b":[],"c":[7]}'), (b'{"a":[1,-2.5e3,333]}',) * 2,
    (b'{"a":[' + b"1,2," * 500 + b"3", b'{"a":[3'), (b'{"a":[' + b"1,2," * 500, b'{"a":['),
    (b'{"a":"short","done":true}', b'{"a":"short","done":true}'),
], ids=lambda text: repr(text[-12:]))
def test_a_long_record_is_kept_short(record: bytes, short: bytes) -> None:
    assert shortened(record) == short and shortened(short) == short


@pytest.mark.parametrize("record", [b'{"done":true,"context":[' + b"12345," * 170_000 + b'0],"eval_count":7}', b'{"done":true,"texts":[' + b'"a",' * 260_000 + b'"a"],"eval_count":7}',
                                    b'{"done":true,"response":"' + b"\\n" * 520_000 + b'","eval_count":7}'], ids=["numbers", "texts", "escapes"])
def test_of_a_long_record_no_more_is_made_than_it_is_long(record: bytes) -> None:
    """As objects, 1 MB of short texts or numbers takes 10 to 50 MB (reliability.md §5 C7: a worker may grow by 8 MiB)."""
    tracemalloc.start()
    try:
        assert judge("done", record) == End(0, 7)
        assert tracemalloc.get_traced_memory()[1] < 5 * LINE_MAX
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coded", [False, True])
def test_a_long_record_says_the_same_however_it_is_cut(coded: bool, monkeypatch) -> None:
    monkeypatch.setattr(endings, "LINE_MAX", 16_000)
    draw = random.Random(20261127)
    words = ["a", "é", "日", "😀", "\\", '"', "\n", "\x01", "[1,2,", "x" * 50]
    for _ in range(200):
        record = {"response": "".join(draw.choices(words, k=draw.randrange(3000))), "done": True, "context": draw.choices(range(10**6), k=draw.randrange(3000)), "eval_count": 7}
        line, pieces = json.dumps(record, ensure_ascii=draw.random() < 0.5, separators=(",", ":")).encode() + b"\n", []
        while line:
            size = draw.choice([1, 2, 3, 700, 1500])
            pieces, line = [*pieces, line[:size]], line[size:]
        kept = last_of(b'{"done":false}\n', *pieces, coded=coded)
        assert judge("done", kept) == End(0, 7) and len(kept) <= 16_000 + len(b'{"done":false}\n')


@pytest.mark.parametrize("coded", [False, True])
def test_a_long_error_is_one(coded: bool) -> None:
    kept = last_of(b'{"error":"', *["no, ü".encode() * 10_000] * 50, b'"}\n', coded=coded)
    assert isinstance(verdict := judge("done", kept), Failure) and verdict.error == FAILED and verdict.text.startswith("no, ")


def test_chunks_that_never_end_with_a_line_are_no_endless_line() -> None:
    """A proxy in between cuts where it likes; no line here is longer than 64 KiB."""
    piece = b'"}\n{"response":"' + b"x" * 65_000
    kept = last_of(b'{"response":"long ago"}\n', *[piece] * (LINE_MAX // len(piece) + 2))
    assert kept.endswith(piece[3:]) and len(kept) < LINE_MAX // 2 and b"long ago" not in kept


def test_figures_of_a_whole_body() -> None:
    assert figures_of(DONE) == End(5, 7, 2.5)
    assert figures_of(b'{"usage":{"prompt_tokens":1,"completion_tokens":2}}') == End(1, 2)
    assert figures_of(b'{"usage":{"input_tokens":1,"output_tokens":2}}') == figures_of(b'{"response":{"usage":{"input_tokens":1,"output_tokens":2}}}') == End(1, 2)
    assert figures_of(b"[1]") == figures_of(b"nothing") == figures({"usage": 7}) == End()
