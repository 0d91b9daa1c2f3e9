"""Who may come in: the localhost problem (reliability.md §2.4)."""

import socket

import pytest

from hermes.errors import CallerError, Forbidden
from hermes.frontend.gate import admit, is_local
from hermes.frontend.http1 import parse_head


def let_in(*fields: str, on_loopback: bool = True) -> bool:
    head = "\r\n".join(["POST /api/chat HTTP/1.1", *([] if any(field.lower().startswith("host:") for field in fields) else ["Host: localhost"]), *fields])
    try:
        admit(parse_head(head.encode("latin-1")), on_loopback)
        return True
    except CallerError as error:
        assert isinstance(error, Forbidden) or "more than one" in error.text
        return False


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:11434", "127.0.0.1", "127.0.0.1:80", "127.8.9.10", "[::1]", "[::1]:11435", "0.0.0.0:1", "10.0.0.5", "192.168.1.7:9",
                                  "box.local", "a.localhost", "ollama.internal:80", "host.docker.internal", "", ":80", socket.gethostname()])
def test_hosts_of_ours(host: str) -> None:
    assert is_local(host) and let_in(f"Host: {host}")


@pytest.mark.parametrize("host", ["evil.com", "evil.com:11434", "localhost.evil.com", "localhost.", "127.1", "0x7f000001", "2130706433", "127.0.0.1.evil.com", "8.8.8.8", "[2001:4860::8888]",
                                  "localhost:4000/#@evil.com", "localhost@evil.com", "user@localhost", "localhost:abc", "localhost:", "localhost:123456", "localhost, evil.com",
                                  "evil.com localhost", "[::1", "::1", "[localhost]x", "127.0.0.1%eth0", "evillocal", "xlocalhost", "\xe9.local", "localhost?x"])
def test_hosts_of_others(host: str) -> None:
    assert not is_local(host) and not let_in(f"Host: {host}")
    assert let_in(f"Host: {host}", on_loopback=False), "as Ollama: whoever listens on an address of the network is asked by its name"


@pytest.mark.parametrize("origin", ["http://localhost", "https://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:1", "http://0.0.0.0", "HTTP://LOCALHOST",
                                    "app://x", "file://", "tauri://localhost", "vscode-webview://abc", "vscode-file://x"])
def test_origins_of_ours(origin: str) -> None:
    assert let_in(f"Origin: {origin}") and let_in(f"Origin: {origin}", on_loopback=False)


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "", "http://localhost.evil.com", "http://localhost@evil.com", "http://evil.com/http://localhost", "http://127.0.0.1.evil.com",
                                    "http://localhost:", "http://localhost:1/x", "http://localhost:abc", "http://127.0.0.2", "xhttp://localhost", "ftp://localhost", "http://localhost, http://evil.com",
                                    "chrome-extension://x", "APP"])
def test_origins_of_others(origin: str) -> None:
    for on_loopback in (True, False):
        assert not let_in(f"Origin: {origin}", on_loopback=on_loopback)


def test_two_origins_are_none_of_ours() -> None:
    assert not let_in("Origin: http://localhost", "Origin: http://evil.com")
    assert not let_in("Origin: app://x", "Origin: http://evil.com")


@pytest.mark.parametrize(("site", "expected"), [("cross-site", False), ("same-site", True), ("same-origin", True), ("none", True)])
def test_fetch_site(site: str, expected: bool) -> None:
    assert let_in(f"Sec-Fetch-Site: {site}", on_loopback=False) == expected
