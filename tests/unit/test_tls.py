"""A client's connection inside TLS: over a real TCP pair, a real handshake; the house behind it is made of fakes."""

import logging
import select
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hermes.config.certificates import CertificateUnusable
from hermes.errors import Cancelled, ClientGone, HermesError, RequestTimeout, UpstreamBroken
from hermes.frontend import tls
from hermes.frontend.connection import READ
from hermes.frontend.exchange import Call, Dialect, Response, Streamed, error_event, error_line
from hermes.frontend.house import House, Limits
from hermes.frontend.http1 import parse_head
from hermes.frontend.principal import Principal
from hermes.frontend.router import Route, Router
from hermes.frontend.tls import Certificate, TlsConnection, TlsServer, TlsUpload, reason
from tests.harness import Client, eventually

FOLDER = Path(__file__).parents[1] / "process" / "tls"
DIALECT = Dialect("test", error_line, error_event)
LARGEST_RECORD = 16 * 1024      # RFC 8446 §5.1


class Source:
    """Steps are bytes to return, or an error to raise."""

    def __init__(self, *steps: bytes | HermesError):
        self.steps, self.ended = list(steps), False

    def read(self) -> bytes:
        step = self.steps.pop(0)
        if isinstance(step, HermesError):
            raise step
        self.ended = not self.steps
        return step

    def close(self) -> None:
        pass


class Town:
    """A TLS server with room for two; `answer` is what /x gives, or a function of the call that makes it."""

    def __init__(self, certificate: Certificate, **limits: float):
        self.answer: object = Response(200, b"x")
        self.notes: list[tuple[int, str]] = []
        self.settings = {name: 30.0 for name in ("head_timeout", "body_timeout", "keepalive_timeout", "send_timeout", "heartbeat", "heartbeat_plain")}
        self.settings |= {"max_body": 10_000_000, "max_parked": 10_000_000, **limits}
        routes = [Route(method, "/x", DIALECT, self.give) for method in ("GET", "POST")] + [Route("POST", "/echo", DIALECT, lambda call: Response(200, bytes(call.body)))]
        self.house = House(Router(routes, [("", DIALECT)]), Limits(SimpleNamespace(**self.settings)), self.admit, self.note, lambda: False)
        self.door = TlsServer(("127.0.0.1", 0), self.house, 2, certificate)
        self.door.start()

    def admit(self, call: Call) -> None:
        call.principal = Principal("somebody")

    def note(self, call: Call, status: int, outcome: str) -> None:
        self.notes.append((status, outcome))

    def give(self, call: Call):
        return self.answer(call) if callable(self.answer) else self.answer


class Visitor(Client):
    def __init__(self, town: Town, **options):
        super().__init__(town.door.server_port, 20)
        self.raw = self.sock.dup()
        context = ssl.create_default_context(cafile=FOLDER / "cert.pem")
        self.sock = context.wrap_socket(self.sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False, **options)

    def ending(self) -> str:
        """To the end: is it one by the rules?"""
        try:
            while self.more():
                pass
            return "whole"
        except ssl.SSLEOFError:
            return "cut"

    def close(self) -> None:
        self.raw.close()
        super().close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for file in FOLDER.iterdir():
        shutil.copyfile(file, folder / file.name)
        (folder / file.name).chmod(0o600)
    return folder


@pytest.fixture
def certificate(files: Path) -> Certificate:
    return Certificate(str(files / "cert.pem"), str(files / "key.pem"))


@pytest.fixture
def towns(certificate: Certificate) -> Iterator:
    made: list[Town] = []

    def make(**limits: float) -> Town:
        made.append(Town(certificate, **limits))
        return made[-1]

    yield make
    for town in made:
        town.door.stop_accepting()
        eventually(lambda: town.door.open == 0)


def test_a_read_leaves_nothing_that_no_poll_shows() -> None:
    assert READ >= LARGEST_RECORD


def test_requests_and_answers(towns) -> None:
    town = towns()
    with Visitor(town) as client:
        assert town.door.url == f"https://127.0.0.1:{town.door.server_port}"
        for body in (b"", b"b", b"c" * LARGEST_RECORD, b"d" * 1_000_000):
            assert client.send("POST", "/echo", body).reply().body == body
        client.send("GET", "/x").send("GET", "/x")
        assert client.reply().body == client.reply().body == b"x", "pipelined"


def test_a_head_in_many_records(towns) -> None:
    with Visitor(towns()) as client:
        for byte in b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n":
            client.send_raw(bytes([byte]))
        assert client.reply().body == b"x"


@pytest.mark.parametrize(("limit", "words", "status"), [("head_timeout", b"GET /x HT", 408), ("body_timeout", b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx", 408)])
def test_deadlines(towns, limit: str, words: bytes, status: int) -> None:
    """Half a record that comes in time is none: the deadline is for what is inside."""
    town = towns(**{limit: 0.5})
    with Visitor(town) as client:
        client.send_raw(words)
        client.raw.send(b"\x17\x03\x03\x40\x00half")
        assert client.reply().status == status and client.ending() == "whole"


def test_an_idle_connection_is_closed_by_the_rules(towns) -> None:
    with Visitor(towns(keepalive_timeout=0.05)) as client:
        assert client.ending() == "whole" and client.buffer == b""
    with Visitor(towns(head_timeout=0.5)) as client:
        assert client.send_raw(b"\r\n").ending() == "whole" and client.buffer == b"", "an empty line is no request"


def test_one_who_says_nothing_makes_room(towns) -> None:
    """In the middle of his handshake as well: a third one comes, and there is room for two."""
    town = towns()
    with socket.create_connection(("127.0.0.1", town.door.server_port), 20) as silent:
        eventually(lambda: len(town.house.waiting._guests) == 1)
        with Visitor(town) as first, Visitor(town) as second:
            assert silent.recv(100)[:1] in (b"", b"\x15")
            assert first.send("GET", "/x").reply().status == 200
            eventually(lambda: len(town.house.waiting._guests) == 2)
            with Visitor(town) as third:
                assert third.send("GET", "/x").reply().status == 200 and second.ending() == "whole"


def test_who_is_turned_away_is_told_nothing_in_the_clear(towns, monkeypatch: pytest.MonkeyPatch) -> None:
    town = towns()
    monkeypatch.setattr(town.door.house.waiting, "evict", lambda: False)
    with Visitor(town) as one, Visitor(town) as two:
        assert one.send("GET", "/x").reply().status == two.send("GET", "/x").reply().status == 200
        with socket.create_connection(("127.0.0.1", town.door.server_port), 20) as third:
            assert third.recv(100) == b""


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(("steps", "ending"), [((b"one", b"two"), "whole"), ((b"one", UpstreamBroken("broken")), "cut")])
def test_what_breaks_off_never_ends_by_the_rules(towns, steps: tuple, ending: str, version: str) -> None:
    town = towns()
    town.answer = Streamed(200, Source(*steps), "plain")
    with Visitor(town) as client:
        client.send_raw(f"GET /x HTTP/{version}\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        assert client.ending() == ending and b"one" in client.buffer


def test_close_notify_waits_behind_an_answer_that_is_still_read(towns) -> None:
    """More than both kernels hold, to somebody slow: close_notify finds no room at first."""
    town = towns()
    size = 8_000_000
    town.answer = Streamed(200, Source(b"x" * size), "plain")
    with Visitor(town) as client:
        client.send_raw(b"GET /x HTTP/1.0\r\nHost: h\r\n\r\n")
        eventually(lambda: town.house.waiting._guests == {})
        assert client.ending() == "whole" and len(client.buffer) > size


def test_ending_a_call_is_told_inside_tls(towns) -> None:
    """`hang_up` comes from another thread, and the rest of the answer must not go out in the clear."""
    town = towns()
    begun, go_on = threading.Event(), threading.Event()

    def slow(call: Call) -> Response:
        begun.set()
        assert go_on.wait(20)
        return Response(200, b"the answer")

    town.answer = slow
    with Visitor(town) as client:
        client.send("GET", "/x")
        assert begun.wait(20)
        [connection] = town.door._connections
        connection.hang_up()
        go_on.set()
        assert client.reply().body == b"the answer" and client.ending() == "whole"


def test_an_upload_that_is_ended_can_still_read_why(towns) -> None:
    """He is deaf to it and it goes on: what comes is thrown away without being looked at, and no reset eats the answer."""
    town, asked = towns(), threading.Event()

    def take(call: Call) -> Response:
        call.cancelled = Cancelled("over")
        asked.set()
        poll = select.poll()
        poll.register(call.client, select.POLLRDHUP)
        assert poll.poll(20_000)
        raise ClientGone

    town.house.router = Router([Route("POST", "/x", DIALECT, take, streams_body=True)], [("", DIALECT)])
    with Visitor(town) as client:
        client.send_raw(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n\r\n")
        assert asked.wait(20)
        client.send_raw(b"x" * 100_000)
        [connection] = town.door._connections
        connection.hang_up()
        client.send_raw(b"x" * 100_000)
        eventually(lambda: town.door.open == 0)
        assert client.reply().status == 499 and client.ending() == "whole"


def test_a_stop_closes_the_idle_by_the_rules(towns) -> None:
    town = towns()
    with Visitor(town) as client:
        assert client.send("GET", "/x").reply().status == 200
        eventually(lambda: town.house.waiting._guests)
        town.door.stop_accepting()
        assert client.ending() == "whole"


def test_one_that_does_not_read_has_send_timeout(towns) -> None:
    town = towns(send_timeout=0.1)
    town.answer = Streamed(200, Source(b"x" * 20_000_000), "plain")
    with Visitor(town) as client:
        client.send("GET", "/x")
        assert eventually(lambda: town.notes) == [(200, "cancelled")]


def test_whoever_ends_a_call_whose_client_does_not_read_waits_for_him_once(towns) -> None:
    town, told = towns(send_timeout=0.1), []

    class Ended(Source):
        def read(self) -> bytes:
            [running] = town.house.live._calls.values()
            running.cancelled = Cancelled("over")
            return super().read()

    town.answer = Streamed(200, Ended(b"x" * 20_000_000, b"never sent"), "plain", in_band=lambda error: told.append(error) or b"never")
    with Visitor(town) as client:
        client.send("GET", "/x")
        assert eventually(lambda: town.notes) == [(200, "cancelled")] and told == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")     # `ssl` leaves closing the socket to the collector then
def test_who_has_left_before_his_turn_is_no_error(towns, caplog: pytest.LogCaptureFixture) -> None:
    town = towns()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 20)
        ours, address = listener.accept()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.close()
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    assert poll.poll(10_000)
    town.door.finish_request(ours, address)
    ours.close()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_a_deadline_that_has_passed(pair_of_plain: tuple[socket.socket, socket.socket], certificate: Certificate, towns) -> None:
    connection = TlsConnection(certificate, pair_of_plain[0], towns().house)
    with pytest.raises(RequestTimeout):
        connection._read(time.monotonic() - 1)
    connection._sock.close()


@pytest.fixture
def pair_of_plain() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 20)
        ours, _ = listener.accept()
    yield ours, client
    client.close()


def test_half_a_record_of_an_upload_is_nothing_yet(towns) -> None:
    """An endpoint that reads must not wait for the rest: his worker may have something to say meanwhile."""
    town = towns(send_timeout=0.5)
    asked, seen = threading.Event(), []

    def take(call: Call) -> Response:
        asked.set()
        poll = select.poll()
        poll.register(call.client, select.POLLIN)
        assert poll.poll(10_000)
        seen.append(call.upload.read())
        return Response(200, b"x")

    town.house.router = Router([Route("POST", "/x", DIALECT, take, streams_body=True)], [("", DIALECT)])
    with Visitor(town) as client:
        client.send_raw(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n")
        assert asked.wait(20)
        client.raw.send(b"\x17\x03\x03\x40\x00half")
        assert client.reply().status == 200 and seen == [b""]


def test_new_connections_get_the_new_certificate(towns, files: Path, certificate: Certificate) -> None:
    town = towns()
    with Visitor(town) as old:
        with pytest.raises(CertificateUnusable):
            certificate.load(str(files / "cert.pem"), str(files / "nowhere"))
        with Visitor(town) as still:
            assert still.send("GET", "/x").reply().status == 200
        eventually(lambda: town.door.open == 1)
        certificate.load(str(files / "renewed.pem"), str(files / "renewed-key.pem"))
        shown = ssl.get_server_certificate(("127.0.0.1", town.door.server_port), timeout=20)
        assert ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert((FOLDER / "renewed.pem").read_text(encoding="ascii"))
        assert old.send("GET", "/x").reply().status == 200


# -- handshakes that come to nothing


def test_one_line_in_a_while(certificate: Certificate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    clock = [100.0]
    monkeypatch.setattr(tls.time, "monotonic", lambda: clock[0])
    for _ in range(1000):
        certificate.failed("10.0.0.1", TimeoutError())
    clock[0] += tls.SELDOM
    certificate.failed("10.0.0.2", ConnectionResetError())
    assert [record.getMessage() for record in caplog.records] == ["TLS handshake failed reason=timeout address=10.0.0.1 count=1",
                                                                  "TLS handshake failed reason=closed address=10.0.0.2 count=1000"]


def test_reasons() -> None:
    assert reason(TimeoutError()) == "timeout" and reason(ssl.SSLEOFError(8, "EOF")) == "closed" and reason(BrokenPipeError()) == "closed"
    words = ssl.SSLError(1, "[SSL: HTTP_REQUEST]")
    words.reason = "HTTP_REQUEST"
    assert reason(words) == "http_request"


# -- uploads


@pytest.fixture
def pair(certificate: Certificate) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket, socket.socket]]:
    """Our end, the client's, and that without TLS around it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), 20)
        ours, _ = listener.accept()
    ours.settimeout(20)
    raw, ours = theirs.dup(), certificate.wrap(ours)
    thread = threading.Thread(target=ours.do_handshake)
    thread.start()
    context = ssl.create_default_context(cafile=FOLDER / "cert.pem")
    theirs = context.wrap_socket(theirs, server_hostname="127.0.0.1")
    thread.join()
    yield ours, theirs, raw
    for sock in (ours, theirs, raw):
        sock.close()


def upload(sock: ssl.SSLSocket, length: int, buffer: bytes = b"") -> TlsUpload:
    return TlsUpload(sock, parse_head(f"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: {length}".encode()), buffer, 1.0)


def test_an_upload_reads_what_is_there_and_never_waits(pair) -> None:
    ours, theirs, raw = pair
    body = upload(ours, 6, b"a")
    assert bytes(body.read()) == b"a"
    started = time.monotonic()
    assert body.read() == b"" and not body.ended, "nothing has come, or half a record"
    assert time.monotonic() - started < 10 and ours.gettimeout() == 20
    theirs.sendall(b"bcdefg")
    got = b""
    while not body.ended:
        got += bytes(body.read())
    assert (got, body.rest) == (b"bcdef", b"g")
    assert body.ready


@pytest.mark.parametrize("how", ["notify", "fin", "rst", "rubbish"])
def test_an_upload_that_ends_too_soon(pair, how: str) -> None:
    ours, theirs, raw = pair
    if how == "notify":
        theirs.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            theirs.unwrap()
    elif how == "rubbish":
        raw.sendall(b"rubbish that is no record")
    else:
        if how == "rst":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        raw.close()
        theirs.close()
    body = upload(ours, 6)

    def gone() -> bool:
        try:
            return body.read() != b""
        except ClientGone:
            return True

    assert eventually(gone)
