"""The framing of the pipe: whatever way reads cut it, and whatever an insane other side sends."""

import math
import random

import pytest

from hermes.workers.messages import (DATA_MAX, End, Failure, FrameReader, Head, Job, Kind, ProtocolError, Timeouts, frame, pack, pack_job,
                                     unpack, unpack_job)

JOB = Job("http://127.0.0.1:11434", "POST", "/api/chat", (("Content-Type", "application/json"),), b'{"a":"\xff\x00"}', "done", True,
          Timeouts(0.5, math.inf, 2.0, math.inf))
MESSAGES = [
    (Kind.HEAD, Head(200, (("content-type", "text/plain"), ("x", "\xe9")), "length", 7)),
    (Kind.END, End(3, None, 0.25)),
    (Kind.FAILURE, Failure("UpstreamBroken", "größer ☃ \ud800", True)),
]


def read_all(reader: FrameReader, pieces: list[bytes]) -> list[tuple[int, bytes]]:
    return [found for piece in pieces for found in reader.feed(piece)]


@pytest.mark.parametrize("job", [JOB, Job("u", "GET", "/"), JOB._replace(body=b"x" * 300_000), JOB._replace(follows=True)])
def test_job_round_trip(job: Job) -> None:
    (kind, payload), = FrameReader(1 << 30).feed(b"".join(pack_job(job)))
    assert kind == Kind.JOB
    assert unpack_job(payload) == job


@pytest.mark.parametrize("size", [3, DATA_MAX, 2 * DATA_MAX])
def test_a_body_in_pieces(size: int) -> None:
    """Small ones are one write, large ones are not copied."""
    large = bytearray(b"x" * size)
    packed = pack_job(JOB._replace(body=(b"a", memoryview(large), b"b")))
    (_, payload), = FrameReader(1 << 30).feed(b"".join(packed))
    assert unpack_job(payload) == JOB._replace(body=b"a" + large + b"b")
    assert len(packed) == (1 if size == 3 else 4)
    assert isinstance(unpack_job(payload).body, memoryview), "nor is it copied where it arrives"


@pytest.mark.parametrize(("kind", "message"), MESSAGES)
def test_message_round_trip(kind: Kind, message) -> None:
    (found, payload), = FrameReader().feed(pack(message))
    assert found == kind
    assert unpack(found, payload) == message


FRAMES = [frame(Kind.READY), frame(Kind.DATA, b"x" * 300), pack(MESSAGES[0][1]), frame(Kind.DATA), frame(Kind.DATA, bytes(range(256)))]
FRAMES += [frame(Kind.BODY, b"x" * 9), frame(Kind.BODY_END), frame(Kind.MORE), frame(Kind.MORE)]
EXPECTED = [(raw[0], raw[5:]) for raw in FRAMES]


def test_every_cut() -> None:
    stream = b"".join(FRAMES)
    assert read_all(FrameReader(), [stream[i:i + 1] for i in range(len(stream))]) == EXPECTED
    for cut in range(len(stream) + 1):
        reader = FrameReader()
        assert read_all(reader, [stream[:cut], stream[cut:]]) == EXPECTED
        assert not reader.partial


def test_random_cuts() -> None:
    rng = random.Random(7)
    for _ in range(100):
        frames = [(rng.randint(1, len(Kind)), rng.randbytes(rng.choice((0, 1, 4, 5, 6, 1000, 70_000)))) for _ in range(rng.randint(1, 8))]
        stream, pieces = b"".join(frame(Kind(kind), payload) for kind, payload in frames), []
        while stream:
            size = rng.choice((1, 3, 5, 9, 4096, 1 << 17))
            pieces.append(stream[:size])
            stream = stream[size:]
        assert read_all(FrameReader(), pieces) == frames


def test_partial() -> None:
    reader = FrameReader()
    whole = frame(Kind.DATA, b"abc")
    for size in range(1, len(whole)):
        reader = FrameReader()
        assert reader.feed(whole[:size]) == [] and reader.partial
    assert not FrameReader().partial


@pytest.mark.parametrize("raw", [
    b"\x00\0\0\0\0", bytes([max(Kind) + 1, 0, 0, 0, 0]), b"\xff\xff\xff\xff\xff", b"HTTP/1.1 200 OK\r\n", b"\x80\x04\x95\0\0",
    bytes([Kind.DATA]) + (DATA_MAX + 1).to_bytes(4, "big"),
])
def test_rubbish_is_refused_at_its_header(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameReader().feed(raw[:5])
    with pytest.raises(ProtocolError):
        read_all(FrameReader(), [frame(Kind.DATA, b"fine"), *(raw[i:i + 1] for i in range(5))])


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_is_known(kind: Kind) -> None:
    assert FrameReader().feed(frame(kind, b"x")) == [(kind, b"x")]
    assert read_all(FrameReader(), [frame(kind)[:3], frame(kind)[3:]]) == [(kind, b"")]


def test_longest_frame_is_taken() -> None:
    assert FrameReader().feed(frame(Kind.DATA, bytes(DATA_MAX))) == [(Kind.DATA, bytes(DATA_MAX))]


@pytest.mark.parametrize("payload", [
    b"", b"\0", b"\0\0\0\x02", b"\0\0\0\x02[]", b"\0\0\0\x02{}", b"\xff\xff\xff\xff[]", b"\0\0\0\x04null", b"\0\0\0\x03\xff\xfe\xfd",
    b"\0\0\0\x1a" + b'["u","G","/",[1],"",0,[]] ', b"\0\0\0\x1d" + b'["u","G","/",[["a"]],"",0,[]]',
    b"\0\0\0\x1b" + b'["u","G","/",[],"",0,[1,2,3,4,5]]'[:27],
])
def test_not_a_job(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_job(payload)


RUBBISH = [b"", b"null", b"7", b"\xff", b"[", b"[1,2,3,4,5,6]"]


@pytest.mark.parametrize(("kind", "payload"), [
    *((kind, payload) for kind in (Kind.HEAD, Kind.END, Kind.FAILURE) for payload in RUBBISH),
    *((kind, b"[]") for kind in Kind if kind != Kind.END),
    (Kind.HEAD, b"{}"), (Kind.HEAD, b'"xy"'), (Kind.HEAD, b"[200,5,3]"), (Kind.HEAD, b"[200,[[1]],3]"), (Kind.HEAD, b'[200,[["a","b","c"]],3]'),
])
def test_not_a_message(kind: Kind, payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(kind, payload)


def test_deeply_nested_rubbish_is_a_protocol_error_too() -> None:
    with pytest.raises(ProtocolError):
        unpack(Kind.HEAD, b"[" * 200_000)


def test_other_side_is_never_believed_about_a_huge_frame_in_memory() -> None:
    """A header alone must not make room for what it announces."""
    reader = FrameReader((1 << 32) - 1)
    assert reader.feed(b"\x01\xff\xff\xff\xff") == []
    assert reader.partial


def test_alike_is_not_the_same() -> None:
    """Orders and heads that have been seen before are known again: each job has its own body all the same, and nothing is kept of one."""
    jobs = [Job("http://o", "POST", "/api/chat", (("A", value),), body) for value, body in (("1", b"one"), ("1", b"two"), ("2", b"two"), ("1", b"one"))]
    again = [unpack_job(b"".join(pack_job(job))[5:]) for job in jobs]
    assert [(job.headers, bytes(job.body)) for job in again] == [(job.headers, job.body) for job in jobs]
    heads = [Head(200, (("a", "b"),), "chunked"), Head(200, (("a", "b"),), "length", 1), Head(404, (("a", "b"),), "length", 1), Head(200, (("a", "b"),), "chunked")]
    assert [unpack(Kind.HEAD, pack(head)[5:]) for head in heads] == heads
    assert [unpack(Kind.END, pack(end)[5:]) for end in (End(1, 2), End(1, 2, 0.5))] == [End(1, 2), End(1, 2, 0.5)]
