"""Streams of one to three good requests, then changed: what the fuzz tests of the parser and of a whole Hermes feed."""

import random

HEADS = [
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"HEAD /livez?a=b HTTP/1.1\r\nhost:localhost\r\nAccept: */*\r\n\r\n",
    b"GET http://localhost/livez HTTP/1.1\r\nHost: localhost\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;b=c\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n28\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n0\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x y (z)\r\nCookie: a=b\r\nCookie: c\r\nX: \xe9\r\n\r\n",
]
WORDS = [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b" ", b"\t", b"\x0b", b"\x0c", b"\x00", b"\x7f", b"\x85", b"\xa0", b"\xff", b":", b",", b";", b"=", b'"', b"\\", b"#", b"@", b"%00", b"+", b"-", b"_",
         b"0", b"0x", b"00", b"9" * 20, b"f" * 13, b"HTTP/1.1", b"HTTP/2.0", b"HTTP/1.2", b"BREW", b"Host: evil\r\n", b"Content-Length: 0\r\n", b"Content-Length: 7\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length:\r\n",
         b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:\x0bchunked\r\n", b"Transfer-Encoding : chunked\r\n", b" folded\r\n", b"Connection: close\r\n", b"Expect: x\r\n", b"0\r\n\r\n",
         b"1\r\nZ\r\n", b"1;a=b\r\nZ\r\n", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", b"X: " + b"y" * 300 + b"\r\n"]


def mutated(draw: random.Random) -> bytes:
    """One to three requests, with up to four changes."""
    stream = bytearray(b"".join(draw.choice(HEADS) for _ in range(draw.choice((1, 1, 2, 3)))))
    for _ in range(draw.choice((0, 1, 1, 1, 2, 4))):
        draw.choice(CHANGES)(stream, draw)
    return bytes(stream)


def _span(stream: bytearray, draw: random.Random) -> slice:
    at = draw.randrange(len(stream) + 1)
    return slice(at, at + draw.choice((1, 1, 2, 5, 20, 100)))


def _line(stream: bytearray, draw: random.Random) -> int:
    """Where a line begins."""
    return draw.choice([0, *(at + 2 for at in range(len(stream)) if stream[at:at + 2] == b"\r\n")])


def _flip(stream: bytearray, draw: random.Random) -> None:
    if stream:
        stream[draw.randrange(len(stream))] ^= 1 << draw.randrange(8)


def _set(stream: bytearray, draw: random.Random) -> None:
    if stream:
        stream[draw.randrange(len(stream))] = draw.randrange(256)


def _insert(stream: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(stream) + 1)
    stream[at:at] = draw.choice(WORDS)


def _insert_line(stream: bytearray, draw: random.Random) -> None:
    at = _line(stream, draw)
    stream[at:at] = draw.choice(WORDS)


def _replace_end(stream: bytearray, draw: random.Random) -> None:
    at = _line(stream, draw)
    stream[max(0, at - 2):at] = draw.choice(WORDS)


def _delete(stream: bytearray, draw: random.Random) -> None:
    del stream[_span(stream, draw)]


def _double(stream: bytearray, draw: random.Random) -> None:
    span = _span(stream, draw)
    stream[span.start:span.start] = stream[span]


def _move(stream: bytearray, draw: random.Random) -> None:
    span = _span(stream, draw)
    piece = bytes(stream[span])
    del stream[span]
    at = draw.randrange(len(stream) + 1)
    stream[at:at] = piece


def _cut_off(stream: bytearray, draw: random.Random) -> None:
    del stream[draw.randrange(len(stream) + 1):]


def _change_case(stream: bytearray, draw: random.Random) -> None:
    span = _span(stream, draw)
    stream[span] = stream[span].swapcase()


def _change_number(stream: bytearray, draw: random.Random) -> None:
    places = [at for at, byte in enumerate(stream) if 0x30 <= byte <= 0x39]
    if places:
        stream[draw.choice(places)] = draw.choice(b"0123456789aF")


CHANGES = [_flip, _set, _insert, _insert, _insert_line, _insert_line, _replace_end, _delete, _double, _move, _cut_off, _change_case, _change_number, _change_number]
