"""TLS on the front, and managing at an address of its own: one Hermes for each configuration, many clients of it."""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes.simulator import Fault, Simulator
from tests.harness import ROOT, SLOW, Client, Hermes, Reply, descriptors, eventually, get, in_threads, post

FOLDER = Path(__file__).with_name("tls")       # keys for 127.0.0.1 that protect nothing, valid for a century
MODEL = "smollm2:135m"
MODELS = f'[models.m]\nmodel = "{MODEL}"\nmax_concurrency = 1\n'
ENDLESS = "p @@tokens=100000,interval=0.02@@"


class TlsClient(Client):
    """`cut`: the connection has ended without close_notify; `whole`: with it."""

    def __init__(self, port: int, ca: Path = FOLDER / "cert.pem"):
        super().__init__(port)
        self.cut = self.whole = False
        context = ssl.create_default_context(cafile=ca)
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.sock = context.wrap_socket(self.sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False)

    def more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except (ssl.SSLEOFError, ConnectionResetError):
            self.cut = True
            return False
        self.buffer += data
        self.whole = not data
        return bool(data)

    def say_goodbye(self) -> None:
        self.sock.setblocking(False)
        try:
            self.sock.unwrap()
        except ssl.SSLError:
            pass                                # close_notify has gone out, and the other side's is not waited for

    def leave(self, how: str) -> None:
        if how == "rst":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how in ("fin", "half"):
            self.say_goodbye()
        if how == "half":
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
        else:
            self.close()


def ask(port: int, path: str, body: object = None, method: str = "POST", **headers: str) -> Reply:
    """Over TLS."""
    with TlsClient(port) as client:
        return client.send(method, path, body, **headers).reply(method)


# -- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ollama() -> Iterator[Simulator]:
    with Simulator(keep_bodies=True, token_interval=0.002) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the present certificate, cert.pem and key.pem, and of the next one."""
    folder = tmp_path_factory.mktemp("tls")
    for file in FOLDER.iterdir():
        shutil.copy(file, folder)
        (folder / file.name).chmod(0o600)
    return folder


def config(folder: Path, more: str = "") -> str:
    return f'tls_cert = "{folder}/cert.pem"\ntls_key = "{folder}/key.pem"\nmanage = true\nsend_timeout = "2s"\n{more}{MODELS}'


@pytest.fixture(scope="module")
def secure(ollama: Simulator, certificate: Path) -> Iterator[Hermes]:
    with Hermes(ollama.url, config(certificate)) as hermes:
        eventually(lambda: ask(hermes.port, "/readyz", method="GET").status == 200)
        yield hermes


def reload(hermes: Hermes, text: str, line: str) -> str:
    """The line that says how it went."""
    before = len(hermes.lines)
    hermes.write_config(text)
    hermes.signal(signal.SIGHUP)
    return eventually(lambda: next((said for said in hermes.lines[before:] if line in said), None), what=line)


def test_it_speaks_tls_and_says_so(secure: Hermes) -> None:
    assert secure.line(f"listening on https://127.0.0.1:{secure.port} upstream=")
    with TlsClient(secure.port) as client:
        assert client.sock.selected_alpn_protocol() == "http/1.1" and client.sock.version() == "TLSv1.3"
        for _ in range(3):
            assert client.send("GET", "/livez").reply().body == b"ok\n", "one connection, several requests"


@pytest.mark.parametrize(("version", "good"), [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)])
@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
def test_no_old_tls(secure: Hermes, version: ssl.TLSVersion, good: bool) -> None:
    context = ssl.create_default_context(cafile=FOLDER / "cert.pem")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = version
    with socket.create_connection(("127.0.0.1", secure.port), 20) as sock:
        try:
            with context.wrap_socket(sock, server_hostname="127.0.0.1"):
                assert good
        except ssl.SSLError:
            assert not good


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_streams_are_the_same_bytes(secure: Hermes, ollama: Simulator, path: str) -> None:
    for number in range(3):
        reply = ask(secure.port, path, {"model": MODEL, "messages": [{"role": "user", "content": f"p{number}"}], "stream": True})
        assert reply.status == 200 and reply.complete and reply.body == ollama.requests[-1].sent and len(reply.body) > 500


def test_large_bodies_both_ways(secure: Hermes, ollama: Simulator) -> None:
    """Many records each; what comes of them in one read is one record."""
    body = json.dumps({"model": MODEL, "prompt": "p", "stream": False, "images": ["A" * 3_000_000]}).encode()
    assert ask(secure.port, "/api/generate", body).complete and ollama.requests[-1].body == body
    wordy = ask(secure.port, "/api/generate", {"model": MODEL, "prompt": "p @@tokens=5000,interval=0@@", "stream": False})
    assert wordy.complete and len(wordy.body) > 20_000


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload(secure: Hermes, ollama: Simulator, chunked: bool) -> None:
    content = bytes(range(256)) * 3000 + bytes([chunked])
    path = f"/api/blobs/sha256:{hashlib.sha256(content).hexdigest()}"
    with TlsClient(secure.port) as client:
        if chunked:
            client.send_raw(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for start in range(0, len(content), 50_000):
                piece = content[start:start + 50_000]
                client.send_raw(b"%x\r\n%b\r\n" % (len(piece), piece))
            client.send_raw(b"0\r\n\r\n")
        else:
            client.send("POST", path, content)
        assert client.reply().status == 201
        assert client.send("HEAD", path).reply("HEAD").status == 200, "and the connection goes on"


def test_an_upload_that_breaks_off_is_no_upload(secure: Hermes) -> None:
    path = f"/api/blobs/sha256:{hashlib.sha256(b'x' * 1000).hexdigest()}"
    for how in ("fin", "bare", "rst", "half"):
        client = TlsClient(secure.port)
        client.send_raw(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n".encode() + b"x" * 999)
        client.leave(how)
        client.close()
    assert ask(secure.port, path, method="HEAD").status == 404


@pytest.mark.parametrize("how", ["fin", "bare", "rst", "half"])
@pytest.mark.parametrize(("phase", "marks"), [("queued", ""), ("loading", "@@load_time=60@@"), ("prefill", "@@prompt_time=60@@"),
                                              ("streaming", "@@tokens=100000,interval=0.02@@")])
def test_leaving_frees_the_worker(secure: Hermes, ollama: Simulator, phase: str, marks: str, how: str) -> None:
    post(ollama.port, "/api/generate", {"model": MODEL, "keep_alive": 0})
    with TlsClient(secure.port) as first:
        if phase == "queued":
            first.send("POST", "/api/generate", {"model": "m", "prompt": ENDLESS}).read_until(b'"done":false')
        client = TlsClient(secure.port).send("POST", "/api/generate", {"model": "m", "prompt": f"{phase} {how} {marks}"})
        if phase == "queued":
            depth = lambda: ask(secure.port, "/v1/status", method="GET").json()["models"][0]["queue"]["depth"]     # noqa: E731
            eventually(lambda: depth() == 1)
            client.leave(how)
            eventually(lambda: depth() == 0, what="leaving the queue")
        else:
            eventually(lambda: ollama.requests and ollama.requests[-1].phase == phase, what=phase)
            if phase == "streaming":
                client.read_until(b'"done":false')
            left = time.monotonic()
            client.leave(how)
            eventually(lambda: ollama.requests[-1].client_left, what="Ollama's side closed")
            assert ollama.requests[-1].client_left_at - left < 1.0 * SLOW
        client.close()
        first.close()
    assert ask(secure.port, "/api/generate", {"model": "m", "prompt": "next", "stream": False}).status == 200


def test_a_client_that_does_not_read_loses_its_worker_after_send_timeout(secure: Hermes, ollama: Simulator) -> None:
    with TlsClient(secure.port) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send("POST", "/api/generate", {"model": "m", "prompt": "p @@tokens=1000000,interval=0@@"})
        eventually(lambda: ollama.requests[-1].client_left, timeout=30, what="the reader's end")
        assert ask(secure.port, "/api/generate", {"model": "m", "prompt": "next", "stream": False}).status == 200


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("cut", [True, False])
def test_close_notify_is_said_behind_what_is_whole_and_nothing_else(secure: Hermes, ollama: Simulator, version: str, cut: bool) -> None:
    if cut:
        ollama.script(Fault(cut_body=400), path="/api/generate")
    body = json.dumps({"model": MODEL, "prompt": "p"}).encode()
    with TlsClient(secure.port) as client:
        client.send_raw(f"POST /api/generate HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        reply = client.reply()
        while client.more():
            pass
    assert reply.status == 200 and reply.body
    assert (client.cut, client.whole) == (cut, not cut)
    assert ("error" in reply.records()[-1]) == cut and reply.complete == (not cut or version == "1.0")


def test_an_idle_connection_ends_with_close_notify(secure: Hermes) -> None:
    """One that is refused, too: 404 behind a body that nobody has read."""
    with TlsClient(secure.port) as client:
        assert client.send("POST", "/nope", b"x" * 100_000).reply().status == 404
        while client.more():
            pass
        assert client.whole and not client.cut


def test_what_is_no_handshake_is_closed_without_a_word(secure: Hermes) -> None:
    for words in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x00\x05rubbish", b"\x00" * 100, b""):
        with socket.create_connection(("127.0.0.1", secure.port), 20) as sock:
            try:
                sock.sendall(words)
                sock.shutdown(socket.SHUT_WR)
                heard = sock.recv(4096)
            except OSError:                     # it has been reset already
                heard = b""
            assert heard[:1] in (b"", b"\x15"), "at most an alert"
    with pytest.raises(ssl.SSLCertVerificationError):
        TlsClient(secure.port, FOLDER / "renewed.pem")
    assert ask(secure.port, "/livez", method="GET").status == 200
    assert eventually(lambda: secure.line("TLS handshake failed reason="))
    assert sum("TLS handshake failed" in line for line in secure.lines) < 4, "one in a while"


def test_64_silent_ones_delay_nobody(secure: Hermes) -> None:
    """head_timeout is 5 s for each: one after the other they would keep the good ones out for minutes."""
    before = descriptors(secure.pid)
    silent = [socket.create_connection(("127.0.0.1", secure.port)) for _ in range(64)]
    for sock in silent[::2]:
        sock.sendall(b"\x16")                   # the first byte of a handshake, and no more
    started = time.monotonic()
    assert {reply.status for reply in in_threads(8, lambda _: ask(secure.port, "/livez", method="GET"))} == {200}
    assert time.monotonic() - started < 1.0 * SLOW
    for sock in silent:
        sock.close()
    eventually(lambda: descriptors(secure.pid) <= before, what="every descriptor back")


def test_a_handshake_that_drips_has_one_deadline(secure: Hermes, certificate: Path) -> None:
    reload(secure, config(certificate, 'head_timeout = "200ms"\n'), "configuration reloaded")
    try:
        hello = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1").do_handshake()
        with socket.create_connection(("127.0.0.1", secure.port), 0.05) as sock:
            with pytest.raises(OSError) as ended:
                for byte in hello.read():
                    sock.sendall(bytes([byte]))
                    try:
                        if not sock.recv(1):
                            raise ConnectionResetError
                    except TimeoutError:
                        pass                    # a drop each 50 ms: 10 s for the whole
            assert isinstance(ended.value, ConnectionError)
    finally:
        reload(secure, config(certificate), "configuration reloaded")


def served(port: int) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=20))


def test_the_certificate_is_renewed_by_sighup(secure: Hermes, certificate: Path) -> None:
    """And one that is broken, or not there, changes nothing."""
    old, new = (ssl.PEM_cert_to_DER_cert((FOLDER / name).read_text(encoding="ascii")) for name in ("cert.pem", "renewed.pem"))
    assert served(secure.port) == old
    with TlsClient(secure.port) as running:
        running.send("POST", "/api/generate", {"model": "m", "prompt": ENDLESS}).read_until(b'"done":false')
        for mistake, line in (((certificate / "cert.pem").unlink, "'tls_cert' in [server] is "), (lambda: shutil.copyfile(certificate / "renewed.pem", certificate / "cert.pem"), "'tls_key' in [server] is ")):
            mistake()
            errors = sum("level=error" in said for said in secure.lines)
            assert "configuration not reloaded" in reload(secure, config(certificate), line)
            assert sum("level=error" in said for said in secure.lines) == errors + 1 and served(secure.port) == old
        shutil.copyfile(certificate / "renewed-key.pem", certificate / "key.pem")
        reload(secure, config(certificate), "configuration reloaded")
        assert served(secure.port) == new
        running.buffer = b""
        running.read_until(b'"done":false')
    reload(secure, MODELS, "tls_cert has been removed; that takes a restart")
    assert served(secure.port) == new
    for name in ("cert.pem", "key.pem"):
        shutil.copyfile(FOLDER / name, certificate / name)
    reload(secure, config(certificate), "configuration reloaded")
    assert served(secure.port) == old


def test_the_health_check_of_the_image(secure: Hermes) -> None:
    """By what the variables say and, where TLS is switched on in a file, without that."""
    text = re.search(r"^HEALTHCHECK .*?CMD (\[.*?\])$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]
    command = [sys.executable, *json.loads(text)[1:]]
    for more in ({}, {"HERMES_SERVER_TLS_CERT": "cert.pem"}):
        assert subprocess.run(command, env={"HERMES_SERVER_LISTEN": f"0.0.0.0:{secure.port}", **more}, timeout=60).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    assert subprocess.run(command, env={"HERMES_SERVER_LISTEN": f"0.0.0.0:{port}"}, timeout=60).returncode == 1


def command(*words: str, **environ: str) -> subprocess.CompletedProcess:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HERMES_", "OLLAMA_"))}
    return subprocess.run([sys.executable, "-m", "hermes", *words], cwd=ROOT, env=kept | environ, capture_output=True, text=True, timeout=60)


def test_the_commands_speak_https(secure: Hermes) -> None:
    url, cert = f"https://127.0.0.1:{secure.port}", str(FOLDER / "cert.pem")
    assert command("status", "--url", url, "--ca", cert).stdout.startswith("ok ")
    assert command("status", "--url", url, SSL_CERT_FILE=cert).returncode == 0
    refused = command("status", "--url", url)
    assert refused.returncode == 1 and "CERTIFICATE_VERIFY_FAILED" in refused.stderr
    assert command("status", "--url", url, "--ca", "/nowhere").returncode == 1
    assert "no answer" in command("status", "--url", url.replace("https", "http")).stderr


def test_a_stop_finishes_what_runs_and_closes_what_is_idle(ollama: Simulator, certificate: Path) -> None:
    with Hermes(ollama.url, config(certificate)) as hermes, TlsClient(hermes.port) as idle, TlsClient(hermes.port) as busy:
        assert idle.send("GET", "/livez").reply().status == 200
        busy.send("POST", "/api/generate", {"model": "m", "prompt": "p @@tokens=20,interval=0.02@@"}).read_until(b'"done":false')
        hermes.signal(signal.SIGTERM)
        assert busy.reply().complete and not busy.more() and busy.whole
        assert not idle.more() and idle.whole
        assert hermes.wait() == 0


# -- managing at an address of its own -----------------------------------------------------------------------------


ALICE, BOB = "hk-alice-0123456789abcdef", "hk-bob-0123456789abcdef"
BLOB = "/api/blobs/sha256:" + "0" * 64
MANAGING = [("POST", "/api/pull"), ("POST", "/api/push"), ("POST", "/api/create"), ("POST", "/api/copy"), ("DELETE", "/api/delete"), ("HEAD", BLOB), ("POST", BLOB),
            ("POST", "/v1/llm/m/pull"), ("POST", "/v1/llm/m/pause"), ("POST", "/v1/llm/m/resume"), ("POST", "/v1/llm/hf.co/u/r:Q4/pull")]
ASKING = [("POST", "/api/generate"), ("POST", "/api/chat"), ("POST", "/api/embed"), ("POST", "/v1/chat/completions"), ("POST", "/v1/messages"),
          ("POST", "/v1/responses"), ("POST", "/v1/llm/m"), ("GET", "/api/tags"), ("GET", "/api/ps"), ("GET", "/v1/models"), ("POST", "/api/show")]


def client(name: str, key: str, more: str = "") -> str:
    return f'[clients.{name}]\nkey_sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n{more}'


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


@pytest.fixture(scope="module")
def apart(ollama: Simulator) -> Iterator[Hermes]:
    """With clients, on TCP. `admin` is the other port."""
    with Hermes(ollama.url, '[server]\n[admin]\nlisten = "127.0.0.1:0"\n' + MODELS + client("alice", ALICE, "manage = true\n") + client("bob", BOB)) as hermes:
        hermes.admin = int(re.search(r" admin=http://127\.0\.0\.1:(\d+) upstream=", hermes.lines[0])[1])
        yield hermes


def call(port: int, method: str, path: str, key: str = "", body: object = None) -> Reply:
    return get(port, path, method, **bearer(key)) if body is None else post(port, path, body, **bearer(key))


@pytest.mark.parametrize(("method", "path"), MANAGING)
def test_the_front_knows_nothing_of_managing(apart: Hermes, ollama: Simulator, method: str, path: str) -> None:
    asked = len(ollama.requests)
    for key, status in ((ALICE, 404), (BOB, 404), ("", 401)):
        assert call(apart.port, method, path, key).status == status
    if method != "HEAD":
        assert call(apart.port, method, path, ALICE).json() == {"error": "404 page not found"}
    assert call(apart.port, "GET", path, ALICE).status == 404 and call(apart.port, "OPTIONS", path).status == 404, "no hint that there is one"
    assert call(apart.port, method, path + "/", ALICE).status in (404, 307) and len(ollama.requests) == asked
    assert call(apart.admin, method, path, BOB).status == 403 and call(apart.admin, method, path).status == 401
    assert len(ollama.requests) == asked
    assert call(apart.admin, method, path, ALICE).status not in (401, 403, 405)
    assert call(apart.admin, "POST", "/v1/llm/m/resume", ALICE).status == 200


@pytest.mark.parametrize(("method", "path"), ASKING)
def test_nothing_generates_at_the_admin_listener(apart: Hermes, ollama: Simulator, method: str, path: str) -> None:
    asked = len(ollama.requests)
    body = {"model": "m", "prompt": "p"} if method == "POST" else None
    assert [call(apart.admin, method, path, key, body).status for key in (ALICE, BOB, "")] == [404, 403, 401]
    assert len(ollama.requests) == asked
    assert call(apart.port, method, path, BOB, body).status not in (401, 403, 404, 405) or path in ("/api/chat", "/v1/messages", "/v1/responses", "/v1/chat/completions")


def test_how_hermes_is_both_say(apart: Hermes) -> None:
    for port in (apart.port, apart.admin):
        assert get(port, "/livez").status == get(port, "/readyz").status == 200
        assert [call(port, "GET", path, ALICE).status for path in ("/v1/status", "/v1/usage", "/", "/api/version")] == [200] * 4
    assert [call(apart.port, "GET", path, BOB).status for path in ("/v1/status", "/v1/usage")] == [200, 200]
    assert [call(apart.admin, "GET", path, BOB).status for path in ("/v1/status", "/v1/usage")] == [403, 403]


def test_managing_works_there(apart: Hermes) -> None:
    assert call(apart.admin, "POST", "/api/pull", ALICE, {"model": "new:1b", "stream": False}).json() == {"status": "success"}
    assert call(apart.admin, "POST", "/api/copy", ALICE, {"source": "new:1b", "destination": "newer"}).status == 200
    assert call(apart.admin, "POST", "/v1/llm/llama3.2:1b/pull", ALICE, {"stream": False}).json() == {"status": "ready"}
    assert [call(apart.admin, "POST", f"/v1/llm/m/{word}", ALICE).json()["status"] for word in ("pause", "resume")] == ["paused", "running"]


def test_somebody_elses_request_is_ended_there_only(apart: Hermes) -> None:
    with Client(apart.port) as bob:
        bob.send("POST", "/api/generate", {"model": "m", "prompt": ENDLESS}, X_Request_ID="bobs", **bearer(BOB)).read_until(b'"done":false')
        seen = {port: call(port, "GET", "/v1/status", ALICE).json()["requests"][0]["id"] for port in (apart.port, apart.admin)}
        assert seen == {apart.port: None, apart.admin: "bobs"}
        assert call(apart.port, "DELETE", "/v1/requests/bobs", ALICE).status == 404
        assert call(apart.admin, "DELETE", "/v1/requests/bobs", BOB).status == 403
        assert call(apart.admin, "DELETE", "/v1/requests/bobs", ALICE).status == 200
        assert not bob.reply().complete

    def users(port: int) -> set[str]:
        return {row["client"] for row in call(port, "GET", "/v1/usage", ALICE).json()["days"]}

    assert eventually(lambda: "bob" in users(apart.admin)) and "bob" not in users(apart.port)
    with Client(apart.port) as bob:
        bob.send("POST", "/api/generate", {"model": "m", "prompt": ENDLESS}, X_Request_ID="own", **bearer(BOB)).read_until(b'"done":false')
        assert call(apart.port, "DELETE", "/v1/requests/own", BOB).status == 200, "one's own still"


def test_a_foreign_page_manages_nothing(apart: Hermes) -> None:
    assert get(apart.admin, "/v1/status", **{"Host": "evil.example", **bearer(ALICE)}).status == 403
    assert get(apart.admin, "/v1/status", Origin="https://evil.example", **bearer(ALICE)).status == 403


def test_bodies_have_one_room_for_both_doors(ollama: Simulator) -> None:
    text = '[server]\nmanage = true\nmax_body = "1MB"\nmax_parked = "1MB"\n[admin]\nlisten = "127.0.0.1:0"\n' + MODELS
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
    with Hermes(ollama.url, text) as hermes:
        admin = int(re.search(r" admin=http://127\.0\.0\.1:(\d+) ", hermes.lines[0])[1])

        def may_send() -> bool:
            """A body of 400,000 bytes, to the admin listener? Nothing of it is sent."""
            with Client(admin) as manager:
                return manager.send_raw(head % (b"/api/pull", 400_000) + b"Expect: 100-continue\r\n\r\n").reply("HEAD").status == 100

        with Client(hermes.port) as guest:
            guest.send_raw(head % (b"/api/chat", 900_000) + b"\r\n" + bytes(800_000))
            eventually(lambda: not may_send())
        eventually(may_send)


def test_a_reload_keeps_both_doors(apart: Hermes) -> None:
    """A key that is taken away is of no use at either; where Hermes listens takes a restart."""
    text = '[server]\n[admin]\nlisten = "{}"\n' + MODELS + client("alice", ALICE, "manage = true\n")
    reload(apart, text.format("127.0.0.1:1"), "[admin] listen has changed; that takes a restart")
    assert call(apart.admin, "GET", "/v1/status", BOB).status == call(apart.port, "GET", "/v1/status", BOB).status == 401
    assert (call(apart.admin, "GET", "/v1/status", ALICE).status, call(apart.port, "POST", "/api/pull", ALICE).status) == (200, 404)
    reload(apart, text.format("127.0.0.1:0") + client("bob", BOB), "configuration reloaded")
    assert call(apart.port, "GET", "/v1/status", BOB).status == 200


# -- … and on a Unix socket ----------------------------------------------------------------------------------------


class UnixClient(Client):
    def __init__(self, path: Path):
        self.sock, self.buffer = socket.socket(socket.AF_UNIX), b""
        self.sock.settimeout(60)
        self.sock.connect(str(path))


def manage(path: Path, method: str, target: str, body: object = None) -> Reply:
    with UnixClient(path) as client:
        return client.send(method, target, body).reply(method)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unix") / "admin.sock"


def local(path: Path) -> str:
    return f'[server]\n[admin]\nlisten = "unix:{path}"\n{MODELS}'


@pytest.fixture(scope="module")
def unix(ollama: Simulator, path: Path) -> Iterator[Hermes]:
    with Hermes(ollama.url, local(path)) as hermes:
        yield hermes


def test_the_socket_is_its_owners_alone(unix: Hermes, path: Path) -> None:
    assert unix.line(f" admin=unix:{path} upstream=")
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600


def test_who_may_open_it_may_manage(unix: Hermes, path: Path) -> None:
    with UnixClient(path) as client:
        assert [client.send("GET", target).reply().status for target in ("/livez", "/readyz", "/v1/status", "/v1/usage")] == [200] * 4
        assert client.send("POST", "/api/pull", {"model": "other:1b", "stream": False}).reply().json() == {"status": "success"}
        assert client.send("POST", "/api/generate", {"model": "m", "prompt": "p"}).reply().status == 404
    assert manage(path, "GET", "/v1/status").status == 200
    assert manage(path, "POST", "/v1/llm/m/pull", {"stream": False}).json() == {"status": "ready"}
    assert [post(unix.port, target, {}).status for target in ("/api/pull", "/v1/llm/m/pull", "/v1/llm/m/pause")] == [404] * 3
    assert unix.line("path=/api/pull client=@unix ")


def test_without_clients_the_front_shows_each_address_its_own(unix: Hermes, path: Path) -> None:
    with Client(unix.port) as other:
        other.close()
        other.sock = socket.create_connection(("127.0.0.1", unix.port), 60, source_address=("127.0.0.9", 0))
        assert other.send("POST", "/api/generate", {"model": "m", "prompt": "p", "stream": False}).reply().status == 200

    def users(reply: Reply) -> set[str]:
        return {row["client"] for row in reply.json()["days"]}

    assert eventually(lambda: "127.0.0.9" in users(manage(path, "GET", "/v1/usage")))
    assert "127.0.0.9" not in users(get(unix.port, "/v1/usage"))


def test_leaving_there_ends_a_pull(unix: Hermes, path: Path, ollama: Simulator) -> None:
    ollama.script(Fault(delay=60), path="/api/pull")
    client = UnixClient(path).send("POST", "/api/pull", {"model": "slow:1b"})
    eventually(lambda: ollama.requests[-1].path == "/api/pull")
    client.sock.shutdown(socket.SHUT_WR)
    eventually(lambda: unix.line("path=/api/pull client=@unix model=slow:1b status=499"), what="the pull's end")
    client.close()


def test_the_commands_find_the_socket(unix: Hermes, path: Path) -> None:
    """By itself where the configuration names it; requests of anybody can be ended there."""
    assert command("status", HERMES_CONFIG=str(unix.config)).stdout.startswith("ok ")
    with Client(unix.port) as running:
        running.send("POST", "/api/generate", {"model": "m", "prompt": ENDLESS}, X_Request_ID="theirs").read_until(b'"done":false')
        assert "theirs" in command("queue", "--url", f"unix:{path}").stdout
        assert command("cancel", "theirs", "--url", f"unix:{path}").stdout == "cancelled theirs\n"
        assert not running.reply().complete
    assert command("status", "--url", "unix:/nowhere").stderr == "hermes: no answer from unix:/nowhere: [Errno 2] No such file or directory\n"


def start(config: Path) -> subprocess.CompletedProcess:
    return command("serve", "--config", str(config))


def test_a_live_socket_is_not_taken(unix: Hermes, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "hermes.toml"
    other.write_text(f'[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "unix:{path}"\n', encoding="utf-8")
    ended = start(other)
    assert ended.returncode == 3 and ended.stderr == f"hermes: cannot listen: somebody listens on {path}\n"
    assert manage(path, "GET", "/livez").status == 200, "nor is it removed"


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    config, file = tmp_path / "hermes.toml", tmp_path / "precious"
    file.write_text("x", encoding="utf-8")
    config.write_text(f'[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "unix:{file}"\n', encoding="utf-8")
    ended = start(config)
    assert ended.returncode == 3 and f"{file} is there, and is no socket" in ended.stderr and file.read_text(encoding="utf-8") == "x"


def test_the_address_that_cannot_be_had_is_named(unix: Hermes, tmp_path: Path) -> None:
    config, path = tmp_path / "hermes.toml", tmp_path / "nowhere" / "admin.sock"
    config.write_text(f'[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "unix:{path}"\n', encoding="utf-8")
    ended = start(config)
    assert (ended.returncode, ended.stderr) == (3, f"hermes: cannot listen: {path}: No such file or directory\n")
    config.write_text(f'[server]\nlisten = "127.0.0.1:{unix.port}"\n', encoding="utf-8")
    ended = start(config)
    assert (ended.returncode, ended.stderr) == (3, f"hermes: cannot listen: 127.0.0.1:{unix.port}: Address already in use\n")


def test_the_socket_of_a_dead_one_is_replaced_and_goes_at_the_stop(ollama: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with Hermes(ollama.url, local(path)) as first:
        eventually(lambda: first.staffed("m"))
        first.signal(signal.SIGKILL)
        first.wait()
    assert path.is_socket(), "nobody was there to remove it"
    with Hermes(ollama.url, local(path)) as second:
        with UnixClient(path) as idle, UnixClient(path) as busy:
            assert idle.send("GET", "/livez").reply().status == 200
            busy.send("POST", "/api/pull", {"model": "later:1b"}).read_until(b"status")
            second.signal(signal.SIGTERM)
            assert busy.reply().complete and not idle.more(), "drained like the other listener"
        assert second.wait() == 0
    assert not path.exists()


def test_tls_and_an_admin_listener_on_tcp(ollama: Simulator, certificate: Path) -> None:
    with Hermes(ollama.url, config(certificate, '[admin]\nlisten = "127.0.0.1:0"\n')) as hermes:
        admin = int(re.search(r" admin=https://127\.0\.0\.1:(\d+) ", hermes.lines[0])[1])
        assert ask(admin, "/v1/status", method="GET").status == 200 and ask(admin, "/api/generate", {"model": "m"}).status == 404
        assert ask(hermes.port, "/api/pull", {"model": "m"}).status == 404
        assert ask(admin, "/api/pull", {"model": "again:1b", "stream": False}).json() == {"status": "success"}
