"""A chunked request body: whole, byte by byte and in every two-part cut the verdict is the same."""

import random
import time

import pytest

from hermes.errors import BadRequest, BodyTooLarge, HeadTooLarge
from hermes.frontend.http1 import FIELDS_MAX, NO_TRAILERS, ChunkedBody, CountedBody


def verdict(pieces: list[bytes], limit: int = 1000) -> tuple[object, bytes]:
    body = ChunkedBody(limit)
    rest = b""
    try:
        for piece in pieces:
            if body.ended:
                rest += piece
            else:
                body.feed(piece)
    except (BadRequest, HeadTooLarge):
        return "malformed", b""
    except BodyTooLarge:
        return "too large", b""
    return (body.body() if body.ended else "more"), body.rest + rest


def agreed(stream: bytes, limit: int = 1000) -> tuple[object, bytes]:
    whole = verdict([stream], limit)
    assert verdict([stream[i:i + 1] for i in range(len(stream))], limit) == whole, "byte by byte"
    for cut in range(1, min(len(stream), 600)):
        assert verdict([stream[:cut], stream[cut:]], limit) == whole, cut
    return whole


@pytest.mark.parametrize(("stream", "expected"), [
    (b"0\r\n\r\n", (b"", b"")), (b"5\r\nhello\r\n0\r\n\r\n", (b"hello", b"")), (b"5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", (b"helloabc", b"GET / HTTP/1.1\r\n\r\n")),
    (b"A\r\n0123456789\r\n00\r\n\r\n", (b"0123456789", b"")), (b"0005\r\n0\r\n\r\n\r\n0\r\n\r\n", (b"0\r\n\r\n", b"")),
    (b'5;a="b c"\r\nhello\r\n0;x\r\nT: 1\r\nU: 2\r\n\r\n', (b"hello", b"")), (b"5 ;a\r\nhello\r\n0\r\n\r\n", (b"hello", b"")),
    (b'5;a;b=c\t;\td = "\\"\xe9" ; e\r\nhello\r\n0\r\n\r\n', (b"hello", b"")), (b"5;a" + b"=b;a" * 63 + b"\r\nhello\r\n0\r\n\r\n", (b"hello", b"")), (b"0\r\n" + b"T: 1\r\n" * FIELDS_MAX + b"\r\n", (b"", b"")),
    (b"", ("more", b"")), (b"5", ("more", b"")), (b"5\r\nhello\r\n0\r\n", ("more", b"")), (b"5\r\nhello\r\n0\r\nA: b\r\n", ("more", b"")),
])
def test_good(stream: bytes, expected: tuple[object, bytes]) -> None:
    assert agreed(stream) == expected


@pytest.mark.parametrize("stream", [
    b"0x5\r\nhello\r\n", b"+5\r\nhello\r\n", b"-5\r\nhello\r\n", b"1_0\r\n0123456789abcdef\r\n", b"\r\nhello\r\n", b" 5\r\nhello\r\n", b"5\nhello\r\n0\r\n\r\n", b"g\r\n",
    b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello\n\n0\r\n\r\n", b"5\r\nhell\r\n0\r\n\r\n", b"5\r\nhello!\r\n0\r\n\r\n", b"\xb2\r\nab\r\n", b"5\x00\r\nhello\r\n",
    b"5;a\rb\r\nhello\r\n", b"5;a\nb\r\nhello\r\n", b"5;\x00\r\nhello\r\n", b"5 x\r\nhello\r\n", b"1234567890123\r\n", b"0\r\n folded\r\n\r\n", b"0\r\nno colon\r\n\r\n",
    b"0\r\nA : b\r\n\r\n", b"0\r\nA: b\rc\r\n\r\n", b"{" * 300, b"5;" + b"x" * 300, b"5\nhello", b"5\r;", b"5\r\r", b"5;a\r;", b"0\r\nA: b\n", b"0\r\n\n", b"0\r\n\rX", b"0\r\nXX\r\n", b"0\n\n",
    b"5 \r\nhello\r\n", b"5;\r\nhello\r\n", b"5;=a\r\nhello\r\n", b"5;a=\r\nhello\r\n", b'5;a="b\r\nhello\r\n', b"5;a b\r\nhello\r\n", b"5;a,b\r\nhello\r\n", b"5,a\r\nhello\r\n", b"5;a;;b\r\nhello\r\n",
    b"0\r\n" + b"T: 1\r\n" * (FIELDS_MAX + 1) + b"\r\n", b"0\r\n" + b"T: " + b"x" * 9000, b"5;" + b"x" * 300 + b"\r\nhello\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
], ids=lambda stream: f"{stream[:20]!r} {len(stream)}")
def test_malformed(stream: bytes) -> None:
    assert agreed(stream) == ("malformed", b"")


def test_what_was_taken_counts_towards_the_limit() -> None:
    body = ChunkedBody(8)
    body.feed(b"5\r\nhello\r\n")
    assert body.take() == b"hello"
    with pytest.raises(BodyTooLarge):
        body.feed(b"4\r\n")


@pytest.mark.parametrize("name", sorted(NO_TRAILERS))
def test_a_trailer_that_decides_about_the_request_is_refused(name: str) -> None:
    assert agreed(b"2\r\nhi\r\n0\r\nT: 1\r\n%s: 5\r\n\r\n" % name.title().encode()) == ("malformed", b"")


@pytest.mark.parametrize("pieces", [[b"A: ", *[b"x" * 1000] * 40], [b"A: " + b"x" * 8000 + b"\r\n"] * 5])
def test_endless_trailer_is_refused(pieces: list[bytes]) -> None:
    assert verdict([b"0\r\n", *pieces]) == ("malformed", b"")


def test_a_counted_body_takes_what_is_its_own() -> None:
    for cut in range(8):
        body = CountedBody(5)
        for piece in (b"hellore"[:cut], b"hellore"[cut:]):
            if not body.ended:
                body.feed(piece)
                rest = body.rest
        assert body.ended and bytes(body.body()) == b"hello" and b"re".startswith(rest) and len(rest) == (7 if cut < 5 else cut) - 5
    assert CountedBody(0).ended


@pytest.mark.parametrize(("stream", "fits"), [
    (b"a\r\n0123456789\r\n0\r\n\r\n", True), (b"b\r\n", False), (b"5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n", True), (b"5\r\nhello\r\n6\r\n", False), (b"ffffffffffff\r\n", False),
])
def test_limit(stream: bytes, fits: bool) -> None:
    """It is known from the size line, before anything is stored."""
    assert (agreed(stream, 10)[0] == "too large") != fits


def test_random() -> None:
    rng = random.Random(4)
    for _ in range(150):
        payloads = [rng.randbytes(rng.choice((1, 2, 16, 300, 70_000))) for _ in range(rng.randint(0, 5))]
        stream = b"".join(b"%x%b\r\n%b\r\n" % (len(p), rng.choice((b"", b";x")), p) for p in payloads) + b"0\r\n\r\nrest"
        pieces = []
        while stream:
            size = rng.choice((1, 7, 1000, 65_536))
            pieces.append(stream[:size])
            stream = stream[size:]
        assert verdict(pieces, 1 << 20) == (b"".join(payloads), b"rest")


def test_a_large_chunk_in_small_pieces_takes_linear_time() -> None:
    began = time.process_time()
    assert verdict([b"400000\r\n", *[b"x" * 1024] * 4096, b"\r\n0\r\n\r\n"], 1 << 23)[0] == b"x" * (1 << 22)
    assert time.process_time() - began < 1.0


def test_a_body_of_tiny_chunks_is_refused_and_honest_small_ones_are_not() -> None:
    """Decoding 64 MiB in chunks of a byte, each with a long size line, would take a minute."""
    line = b"1;" + b"x" * 100 + b"\r\na\r\n"
    assert verdict([line * 1000 + b"0\r\n\r\n"], 1 << 20) == ("malformed", b"")
    assert verdict([b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n"], 1 << 20) == (b"a" * 10_000, b"")
