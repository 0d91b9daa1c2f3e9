"""A stand-in for Ollama that is as fast as a Python process can be: prepared bytes, one poll loop, no threads.

`python -m tests.bench.upstream PORT` serves until it is ended; several may share a port (SO_REUSEPORT). What it answers is in the
request's body: "stream":false → one JSON object; a number behind "paced" → that many tokens, 50 a second; else 64 tokens at once.
"""

import heapq
import select
import socket
import sys
import time

TOKENS = 64
PACE = 0.02                 # seconds between two tokens of a paced stream
_LINE = b'{"model":"smollm2:135m","created_at":"2026-11-22T23:57:47.248919925Z","response":" token","done":false}\n'
_LAST = (b'{"model":"smollm2:135m","created_at":"2026-11-22T23:57:47.322402203Z","response":"","done":true,"done_reason":"stop",'
         b'"total_duration":130996327,"load_duration":810454,"prompt_eval_count":13,"prompt_eval_duration":51007000,"eval_count":64,'
         b'"eval_duration":75936000}\n')
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nDate: Sun, 22 Nov 2026 23:57:47 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


TOKEN, END = chunk(_LINE), chunk(_LAST) + b"0\r\n\r\n"
PLAIN_BODY = b'{"model":"smollm2:135m","response":"' + b" token" * 40 + b'","done":true,"done_reason":"stop","prompt_eval_count":13,"eval_count":40}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b" % (len(PLAIN_BODY), PLAIN_BODY)


class Server:
    def __init__(self, port: int):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen(1024)
        self.listener.setblocking(False)
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.sockets: dict[int, socket.socket] = {}
        self.buffers: dict[int, bytes] = {}
        self.due: list[tuple[float, int, int]] = []     # when, whose, tokens left

    def run(self) -> None:
        while True:
            timeout = max(0.0, self.due[0][0] - time.monotonic()) if self.due else -1
            for fd, _ in self.poll.poll(timeout):
                if fd == self.listener.fileno():
                    self.accept()
                else:
                    self.read(fd)
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                self.pace(*heapq.heappop(self.due))

    def accept(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except BlockingIOError:
            return                                      # another process was faster
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sockets[sock.fileno()], self.buffers[sock.fileno()] = sock, b""
        self.poll.register(sock, select.EPOLLIN)

    def read(self, fd: int) -> None:
        try:
            data = self.sockets[fd].recv(65536)
        except OSError:
            data = b""
        if not data:
            self.poll.unregister(fd)
            self.sockets.pop(fd).close()
            del self.buffers[fd]
            return
        buffer = self.buffers[fd] + data
        end = buffer.find(b"\r\n\r\n")
        if end >= 0:
            at = buffer[:end].lower().find(b"content-length:")
            length = int(buffer[at + 15:].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(buffer) >= end + 4 + length:
                self.buffers[fd] = buffer[end + 4 + length:]
                try:
                    self.answer(fd, buffer[end + 4:end + 4 + length])
                except OSError:
                    pass                            # it has left; the next read tells
                return
        self.buffers[fd] = buffer

    def answer(self, fd: int, body: bytes) -> None:
        at = body.find(b"paced ")
        if at >= 0:
            tokens = int(body[at + 6:].split(b'"', 1)[0])
            self.sockets[fd].send(_HEAD + TOKEN)
            heapq.heappush(self.due, (time.monotonic() + PACE, fd, tokens - 1))
        else:
            self.stream(self.sockets[fd]) if body and b'"stream":false' not in body else self.sockets[fd].send(PLAIN)

    def stream(self, sock: socket.socket) -> None:
        """Token by token, a send for each, as Ollama flushes them (ollama-api.md §4.2)."""
        sock.send(_HEAD + TOKEN)
        for _ in range(TOKENS - 1):
            sock.send(TOKEN)
        sock.send(END)

    def pace(self, when: float, fd: int, left: int) -> None:
        if fd not in self.sockets:
            return
        try:
            self.sockets[fd].send(TOKEN if left else END)
        except OSError:
            return
        if left:
            heapq.heappush(self.due, (when + PACE, fd, left - 1))


if __name__ == "__main__":
    Server(int(sys.argv[1])).run()
