"""The load: one process, one poll loop, keep-alive connections. `python -m tests.bench.load` takes its order as JSON and prints its result so."""

import json
import select
import socket
import sys
import time

from tests.bench.upstream import TOKENS

STREAM = json.dumps({"model": "smollm2:135m", "prompt": "One, two,"}).encode()
PLAIN = b'{"model":"smollm2:135m","prompt":"One, two,","stream":false}'


def request(body: bytes, path: str = "/api/generate", method: str = "POST") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        method.encode(), path.encode(), len(body), body)


def whole(answer: bytes) -> bool | None:
    """True: whole and right. False: wrong. None: not yet."""
    if answer.endswith(b"\r\n0\r\n\r\n"):
        return answer.startswith(b"HTTP/1.1 200") and answer.count(b'"done":') == TOKENS + 1
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = answer[:end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        return None
    if len(answer) < end + 4 + int(head[at + 15:].split(b"\r\n", 1)[0]):
        return None
    return answer.startswith(b"HTTP/1.1 200")


class Connection:
    __slots__ = ("sock", "buffer", "sent", "first")

    def __init__(self, port: int):
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.sent, self.first = b"", 0.0, 0.0

    def ask(self, data: bytes) -> None:
        self.buffer, self.first, self.sent = b"", 0.0, time.perf_counter()
        self.sock.sendall(data)


def rate(port: int, clients: int, seconds: float, body: bytes) -> dict:
    """Closed loop: each client asks again as soon as it has its answer. Answers a second, first bytes in seconds."""
    data, poll, connections = request(body), select.epoll(), {}
    for _ in range(clients):
        connection = Connection(port)
        connections[connection.sock.fileno()] = connection
        poll.register(connection.sock, select.EPOLLIN)
    done, wrong, firsts, start = 0, 0, [], time.perf_counter()
    for connection in connections.values():
        connection.ask(data)
    while (now := time.perf_counter()) < start + seconds:
        for fd, _ in poll.poll(0.5):
            connection = connections[fd]
            piece = connection.sock.recv(65536)
            if not connection.buffer:
                firsts.append(time.perf_counter() - connection.sent)
            connection.buffer += piece
            state = whole(connection.buffer)
            if state is None and piece:
                continue
            done, wrong = done + bool(state), wrong + (not state)
            if not piece:
                raise SystemExit(f"the connection ended: {connection.buffer[:200]!r}")
            connection.ask(data)
    for connection in connections.values():
        connection.sock.close()
    return {"rate": done / (now - start), "wrong": wrong, "firsts": firsts}


def paced(port: int, clients: int, tokens: int) -> dict:
    """`clients` streams of `tokens` tokens at 50 a second; the gaps between two tokens, in seconds."""
    poll, connections, gaps, last = select.epoll(), {}, [], {}
    for number in range(clients):
        connection = Connection(port)
        connections[connection.sock.fileno()] = connection
        poll.register(connection.sock, select.EPOLLIN)
        connection.ask(request(json.dumps({"model": "smollm2:135m", "prompt": f"paced {tokens}"}).encode()))
        time.sleep(0.02 / clients)              # spread over one pace, as independent users are
    wrong = 0
    while connections:
        for fd, _ in poll.poll(5):
            connection, now = connections[fd], time.perf_counter()
            piece = connection.sock.recv(65536)
            count = piece.count(b'"done":')
            if count:                           # tokens that come together have no gap between them, the first ones neither
                gaps += ([now - last[fd]] if fd in last else []) + [0.0] * (count - 1)
            last[fd] = now
            connection.buffer += piece
            if not piece or piece.endswith(b"\r\n0\r\n\r\n"):
                wrong += connection.buffer.count(b'"done":') != tokens + 1
                poll.unregister(fd)
                connections.pop(fd).sock.close()
    return {"gaps": gaps, "wrong": wrong}


def burst(port: int, clients: int, path: str) -> dict:
    """All connect at once and ask for something small: seconds from connect to the whole answer."""
    data, poll, starts, sockets, times, buffers = request(b"", path, "GET"), select.epoll(), {}, {}, [], {}
    for _ in range(clients):
        sock = socket.socket()
        sock.setblocking(False)
        starts[sock.fileno()], sockets[sock.fileno()], buffers[sock.fileno()] = time.perf_counter(), sock, b""
        sock.connect_ex(("127.0.0.1", port))
        poll.register(sock, select.EPOLLOUT)
    while sockets:
        events = poll.poll(10)
        if not events:
            return {"times": times, "wrong": len(sockets)}
        for fd, event in events:
            if event & select.EPOLLOUT:
                sockets[fd].send(data)
                poll.modify(fd, select.EPOLLIN)
                continue
            buffers[fd] += sockets[fd].recv(65536)
            if whole(buffers[fd]):
                times.append(time.perf_counter() - starts[fd])
                poll.unregister(fd)
                sockets.pop(fd).close()
    return {"times": times, "wrong": 0}


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    kind = order.pop("kind")
    if "body" in order:
        order["body"] = {"stream": STREAM, "plain": PLAIN}[order["body"]]
    print(json.dumps({"rate": rate, "paced": paced, "burst": burst}[kind](**order)))
