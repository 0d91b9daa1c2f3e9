"""ChunkWalker: what is handed on decodes to the payload and ends at a chunk boundary, whatever way the reads cut it."""

import random

import pytest

from hermes.errors import UpstreamBroken
from hermes.workers.chunks import HOLD, ChunkWalker


def code(*payloads: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(payload), payload) for payload in payloads) + last


def decode(coded: bytes) -> bytes:
    """The oracle: whole chunks, sizes in plain hex, nothing else."""
    pieces = []
    while coded:
        line, found, coded = coded.partition(b"\r\n")
        assert found and line and not line.strip(b"0123456789abcdefABCDEF"), f"not a chunk line: {line[:40]!r}"
        size = int(line, 16)
        assert size, "a last chunk was handed on"
        assert coded[size:size + 2] == b"\r\n", "not at a chunk boundary"
        pieces.append(coded[:size])
        coded = coded[size + 2:]
    return b"".join(pieces)


class Run:
    def __init__(self, pieces: list[bytes], decoded: bool = False):
        walker = ChunkWalker(decode=decoded)
        output = []
        for piece in pieces:
            handed = walker.feed(piece)
            output.append(handed if decoded else decode(handed))     # at each step, not only at the end
        self.payload = b"".join(output)
        self.ended, self.rest = walker.ended, walker.rest


def cuts(stream: bytes) -> list[list[bytes]]:
    whole = [[stream], [stream[i:i + 1] for i in range(len(stream))]]
    return whole + [[stream[:cut], stream[cut:]] for cut in range(1, len(stream))]


GOOD = {
    "one": (code(b"hello"), b"hello"),
    "empty": (code(), b""),
    "several": (code(b'{"a":1}\n', b"x", b"\r\n"), b'{"a":1}\nx\r\n'),
    "payload looks like an end": (code(b"0\r\n\r\n", b"a\r\n0\r\n\r\n"), b"0\r\n\r\na\r\n0\r\n\r\n"),
    "uppercase": (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "leading zeros": (b"00005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "extensions": (b'5;a=b\r\nhello\r\n3 ;x="y z"\r\nabc\r\n1\r\n!\r\n0;q\r\n\r\n', b"helloabc!"),
    "longest line": (b"5;" + b"x" * 252 + b"\r\nhello\r\n0\r\n\r\n", b"hello"),
    "trailers": (code(b"hi", last=b"0\r\nA: 1\r\nB: 2\r\n\r\n"), b"hi"),
    "every byte": (code(bytes(range(256))), bytes(range(256))),
}


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("name", GOOD)
def test_every_cut(name: str, decoded: bool) -> None:
    stream, payload = GOOD[name]
    for pieces in cuts(stream):
        run = Run(pieces, decoded)
        assert (run.payload, run.ended, run.rest) == (payload, True, b""), pieces


def test_what_comes_behind_is_kept() -> None:
    for pieces in cuts(code(b"hi") + b"HTTP/1.1"):
        walker, unread = ChunkWalker(), b""
        for piece in pieces:                        # as the relay does: after the end it reads no further
            if walker.ended:
                unread += piece
            else:
                walker.feed(piece)
        assert walker.rest + unread == b"HTTP/1.1"


BAD = [b"0x5\r\nhello\r\n", b"+5\r\nhello\r\n", b"-5\r\nhello\r\n", b"1_0\r\n0123456789abcdef\r\n", b"\r\nhello\r\n", b" 5\r\nhello\r\n",
       b"5\nhello\r\n", b"5\rhello\r\n", b"g\r\n", b"5 x\r\nhello\r\n", b"5\x00\r\nhello\r\n", b"\xb2\r\nab\r\n", b"5;a\rb\r\nhello\r\n",
       b"5;a\nb\r\nhello\r\n", b"1234567890123\r\n", b"5\r\nhelloXX", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhell\r\n0\r\n\r\n", b"5\r\nhello\rX",
       b"5;" + b"x" * 300 + b"\r\nhello\r\n", b"{" * 300, b"HTTP/1.1 200 OK\r\n"]


@pytest.mark.parametrize("raw", BAD, ids=lambda raw: repr(raw[:12]))
def test_malformed(raw: bytes) -> None:
    for pieces in cuts(code(b"fine", last=b"") + raw):
        with pytest.raises(UpstreamBroken):
            Run(pieces)


def test_cut_answers_never_end() -> None:
    stream = code(b"hello", b"x" * 20)
    for cut in range(len(stream)):
        assert not Run([stream[:cut]]).ended


def test_endless_trailer() -> None:
    with pytest.raises(UpstreamBroken):
        Run([b"0\r\n", *[b"x" * 1000] * 10])


SIZES = [HOLD - 300, HOLD - 8, *range(HOLD - 7, HOLD + 3), 2 * HOLD, 3 * HOLD + 1]


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_hold(size: int, decoded: bool) -> None:
    payload = bytes(i * 7 % 251 for i in range(size))
    stream = code(b"first", payload, b"0\r\n\r\n", b"last")
    expected = b"first" + payload + b"0\r\n\r\n" + b"last"
    first = len(code(b"first", last=b"")) + len(b"%x\r\n" % size)
    near = [first, first + HOLD - 6, first + HOLD, first + size, first + size + 1, first + size + 2]
    for cut in (cut + shift for cut in near for shift in (-2, -1, 0, 1, 2) if 0 < cut + shift < len(stream)):
        run = Run([stream[:cut], stream[cut:cut + 1], stream[cut + 1:]], decoded)
        assert (run.payload == expected, run.ended, run.rest) == (True, True, b""), cut


def test_large_chunk_with_a_bad_end() -> None:
    stream = b"%x\r\n" % (HOLD + 10) + b"x" * (HOLD + 10)
    for cut in range(len(stream) - 3, len(stream) + 3):
        with pytest.raises(UpstreamBroken):
            raw = stream + b"\rX0\r\n\r\n"
            Run([raw[:cut], raw[cut:]])


def test_nothing_much_is_held_back() -> None:
    """Of a chunk of a terabyte everything is handed on as it comes."""
    walker = ChunkWalker()
    walker.feed(b"ffffffffff\r\n")
    assert sum(len(decode(walker.feed(b"x" * 50_000))) for _ in range(20)) > 20 * 50_000 - HOLD - 50_000


def test_random_bodies_and_cuts() -> None:
    rng = random.Random(20261123)
    for _ in range(150):
        payloads = [rng.randbytes(rng.choice((1, 2, 15, 16, 255, 4096, HOLD - 5, HOLD, HOLD + 1, 100_000))) for _ in range(rng.randint(0, 6))]
        stream = b""
        for payload in payloads:
            extension = rng.choice((b"", b"", b";a=b", b' ; "x"'))
            stream += rng.choice((b"%x", b"%X", b"000%x")) % len(payload) + extension + b"\r\n" + payload + b"\r\n"
        stream += rng.choice((b"0\r\n\r\n", b"00;x\r\nT: 1\r\n\r\n"))
        pieces = []
        while stream:
            size = rng.choice((1, 2, 3, 100, 5000, 65_536))
            pieces.append(stream[:size])
            stream = stream[size:]
        run = Run(pieces, rng.random() < 0.3)
        assert run.payload == b"".join(payloads) and run.ended


def test_random_rubbish_is_refused_or_well_formed() -> None:
    rng = random.Random(1)
    alphabet = [b"0", b"1", b"5", b"a", b"\r", b"\n", b"\r\n", b";", b" ", b"x", b"\x00"]
    for _ in range(3000):
        stream = b"".join(rng.choices(alphabet, k=rng.randint(1, 24)))
        outcomes = set()
        for pieces in ([stream], [stream[i:i + 1] for i in range(len(stream))]):
            try:
                run = Run(pieces)
                outcomes.add((run.payload, run.ended))
            except UpstreamBroken:
                outcomes.add(("refused", False))
        # Fed at once or in bytes the verdict is the same, but for what follows the end, which a relay does not feed.
        assert len(outcomes) == 1 or any(ended for _, ended in outcomes), stream
