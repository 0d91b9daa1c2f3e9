"""An upstream behind TLS: verified against the certificates the host trusts, streamed like any other, refused when not trusted."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from hermes.simulator import Simulator
from tests.harness import Hermes, post

FOLDER = Path(__file__).with_name("tls")       # a key for 127.0.0.1 that protects nothing, valid for a century
CONFIG = '[models.m]\nmodel = "smollm2:135m"\n'


@contextlib.contextmanager
def behind_tls(port: int) -> Iterator[int]:
    """Ends TLS in front of `port`, one connection a thread."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FOLDER / "cert.pem", FOLDER / "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=converse, args=(client,), daemon=True).start()

    def converse(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, context.wrap_socket(client, server_side=True) as tls, \
                socket.create_connection(("127.0.0.1", port)) as upstream:
            threading.Thread(target=copy, args=(upstream, tls), daemon=True).start()
            copy(tls, upstream)

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_streams_through_tls() -> None:
    with Simulator(keep_bodies=True, token_interval=0.005) as ollama, behind_tls(ollama.port) as port, \
            Hermes(f"https://127.0.0.1:{port}", CONFIG, SSL_CERT_FILE=str(FOLDER / "cert.pem")) as hermes:
        for number in range(3):
            reply = post(hermes.port, "/api/generate", {"model": "smollm2:135m", "prompt": f"p{number}"})
            assert reply.complete and reply.body == ollama.requests[-1].sent
        large = post(hermes.port, "/api/generate", {"model": "m", "prompt": "x", "stream": False, "images": ["A" * 3_000_000]})
        assert large.status == 200 and large.complete


def test_a_certificate_that_nobody_trusts_is_a_502() -> None:
    with Simulator() as ollama, behind_tls(ollama.port) as port, Hermes(f"https://127.0.0.1:{port}", CONFIG) as hermes:
        reply = post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"})
        assert reply.status == 502 and "TLS" in reply.json()["error"]
        assert not ollama.requests
