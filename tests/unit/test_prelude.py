"""The request that goes ahead: on the job's own connection, heard by nobody, and as fatal as the job's own where there is no connection."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from hermes.workers.messages import End, Failure, FrameReader, Head, Job, Kind, Prelude, Timeouts, pack_job, unpack, unpack_job
from hermes.workers.ollama import Ollama
from hermes.workers.watch import Pipe, Watch

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 14\r\n\r\n{\"error\":\"no\"}"
MOVED = b"HTTP/1.1 307 x\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"


class Script:
    """A server that gives one written answer a request; one that does not end as it says, or is empty, ends the connection."""

    def __init__(self, answers: list[bytes]):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard: list[tuple[int, bytes]] = []        # number of the connection, request line and body
        self._answers = answers
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while self._answers:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            with peer:
                while self._answers and (request := self._request(peer)):
                    self.heard.append((number, request))
                    answer = self._answers.pop(0)
                    peer.sendall(answer)
                    if b"Connection: close" in answer or not answer or answer.endswith(b"cut"):
                        break

    def _request(self, peer: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := peer.recv(65536)):
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        while len(body) < length:
            body += peer.recv(65536)
        return head.split(b" HTTP")[0] + b" " + body

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)       # wakes the thread
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()


@pytest.fixture
def play() -> Iterator:
    scripts, workers, pipe = [], [], os.pipe()

    def run(*answers: bytes) -> tuple[list, Script]:
        scripts.append(Script(list(answers)))
        sent: list[bytes] = []
        job = Job(scripts[-1].url, "POST", "/v1/chat", (), b"job", timeouts=Timeouts(5, 20, 20, 20), prelude=Prelude("/api/generate", '{"é":1}'))
        workers.append(Ollama(Watch(Pipe(pipe[0])), sent.append))
        workers[-1].serve(unpack_job(b"".join(pack_job(job))[5:]))
        return FrameReader().feed(b"".join(sent)), scripts[-1]

    yield run
    for worker in workers:
        worker._handler.drop()
    for script in scripts:
        script.close()
    for fd in pipe:
        os.close(fd)


AHEAD, MAIN = 'POST /api/generate {"é":1}'.encode(), b"POST /v1/chat job"


@pytest.mark.parametrize("first", [OK, CHUNKED, REFUSED, MOVED])
def test_whatever_it_is_answered_the_job_follows_on_the_same_connection(play, first: bytes) -> None:
    frames, script = play(first, OK)
    assert script.heard == [(1, AHEAD), (1, MAIN)]
    assert [Kind(kind) for kind, _ in frames] == [Kind.HEAD, Kind.DATA, Kind.END]
    assert unpack(*frames[0]) == Head(200, (), "length", 2) and frames[1][1] == b"ok" and unpack(*frames[2]) == End()


def test_a_connection_that_ends_with_it_is_made_anew(play) -> None:
    frames, script = play(CLOSING, OK)
    assert script.heard == [(1, AHEAD), (2, MAIN)] and frames[1][1] == b"ok"


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ncut", b"rubbish\r\n\r\ncut"])
def test_a_broken_connection_is_the_jobs_failure(play, first: bytes) -> None:
    frames, script = play(first, OK)
    assert script.heard == [(1, AHEAD)]
    [(kind, payload)] = frames
    failure = unpack(kind, payload)
    assert isinstance(failure, Failure) and failure.error == "UpstreamBroken"


def test_a_connection_lost_between_the_two_is_made_anew(play) -> None:
    """The job's own request found a connection that had gone stale: nothing of its answer had come."""
    frames, script = play(OK, b"", OK)
    assert script.heard == [(1, AHEAD), (1, MAIN), (2, MAIN)] and frames[1][1] == b"ok"
