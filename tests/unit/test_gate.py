"""Who may come in: the localhost problem (reliability.md §2.4), keys, lock-outs and rates."""

import hashlib
import socket
from types import SimpleNamespace

import pytest

from hermes.config import loads
from hermes.dispatch.limits import WRONG_KEYS
from hermes.errors import CallerError, Forbidden, LockedOut, RateLimited, Unauthorized
from hermes.frontend.exchange import Call
from hermes.frontend.gate import Gate, is_local, refuse_strangers
from hermes.frontend.http1 import parse_head
from hermes.frontend.principal import NOBODY


def let_in(*fields: str, on_loopback: bool = True) -> bool:
    head = "\r\n".join(["POST /api/chat HTTP/1.1", *([] if any(field.lower().startswith("host:") for field in fields) else ["Host: localhost"]), *fields])
    try:
        refuse_strangers(parse_head(head.encode("latin-1")), on_loopback)
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


# -- keys, lock-outs and rates


KEY = "hk-the-key-of-alice"
CLIENTS = f'[clients.alice]\nkey_sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n'


def ask(gate: Gate, key: str | None = KEY, path: str = "/api/tags", address: str = "10.0.0.1", **more: str) -> Call:
    fields = {"Host": "localhost", **({"Authorization": f"Bearer {key}"} if key is not None else {}), **more}
    head = f"GET {path} HTTP/1.1\r\n" + "\r\n".join(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())
    call = Call(parse_head(head.encode("latin-1")), SimpleNamespace(address=address))
    gate.admit(call)
    return call


def make(text: str, on_loopback: bool = True) -> Gate:
    return Gate(loads(text), on_loopback)


def test_the_principal_is_filled_in() -> None:
    assert ask(make(CLIENTS)).principal.name == "alice"
    anyone = ask(make(""), key="ollama").principal
    assert (anyone.name, anyone.pull, anyone.manage) == ("10.0.0.1", True, False)
    assert not ask(make("", on_loopback=False)).principal.pull, "the network may not pull"
    assert ask(make("[server]\nmanage = true", on_loopback=False)).principal.pull
    assert not ask(make(CLIENTS + "[server]\nmanage = true")).principal.pull, "with clients it is the client's own"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_need_no_key_and_are_nobody(path: str) -> None:
    gate = make(CLIENTS)
    assert ask(gate, None, path).principal is ask(gate, "wrong", path).principal is NOBODY
    with pytest.raises(Forbidden):
        ask(gate, None, path, Origin="http://evil.example")


@pytest.mark.parametrize("path", ["/v1/status", "/", "/livez/", "/LIVEZ", "//livez", "/nothing", "/livez%00"])
def test_everything_else_needs_one(path: str) -> None:
    for key in (None, "wrong"):
        with pytest.raises(Unauthorized):
            ask(make(CLIENTS), key, path)
    assert ask(make(CLIENTS), KEY, path).principal.name == "alice"


def test_strangers_are_refused_before_the_key() -> None:
    gate = make(CLIENTS)
    for _ in range(WRONG_KEYS + 1):
        with pytest.raises(Forbidden):
            ask(gate, "wrong", Origin="http://evil.example")
    assert ask(gate)


def test_wrong_keys_lock_out_even_the_right_one_until_the_minute_is_over(caplog: pytest.LogCaptureFixture) -> None:
    gate = make(CLIENTS)
    for _ in range(WRONG_KEYS):
        with pytest.raises(Unauthorized):
            ask(gate, "hk-a-wrong-one")
    for key in (KEY, "wrong", None):
        with pytest.raises(LockedOut) as caught:
            ask(gate, key)
        assert 1 <= caught.value.retry_after <= 59
    assert ask(gate, None, "/livez") and ask(gate, address="10.0.0.2").principal.name == "alice"
    assert [record.getMessage() for record in caplog.records] == ["too many wrong keys, locked out for the rest of the minute address=10.0.0.1"]


def test_no_key_is_no_wrong_key() -> None:
    gate = make(CLIENTS)
    for _ in range(WRONG_KEYS + 1):
        with pytest.raises(Unauthorized):
            ask(gate, None)
    for _ in range(WRONG_KEYS):
        with pytest.raises(Unauthorized):
            ask(gate, None, X_Api_Key="")
    with pytest.raises(LockedOut):
        ask(gate)


def test_an_ipv6_network_is_one_guesser() -> None:
    gate = make(CLIENTS)
    for number in range(WRONG_KEYS):
        with pytest.raises(Unauthorized):
            ask(gate, "wrong", address=f"2001:db8::{number:x}")
    with pytest.raises(LockedOut):
        ask(gate, address="2001:db8::ffff:1")
    assert ask(gate, address="2001:db8:0:1::1") and ask(gate, address="fe80::1%eth0")


def test_without_clients_nothing_is_wrong() -> None:
    gate = make("")
    for _ in range(WRONG_KEYS + 1):
        assert ask(gate, "wrong").principal.name == "10.0.0.1"


def test_a_rate_is_the_clients_and_its_fields_are_on_every_answer() -> None:
    gate = make(CLIENTS + "requests_per_minute = 2")
    first = ask(gate, path="/v1/status")
    assert first.headers == (), "looking at the status is not counted"
    assert ask(gate).headers == (("RateLimit", '"default";r=1;t=60'), ("RateLimit-Policy", '"default";q=2;w=60'))
    assert ask(gate, address="10.0.0.2").headers[0][1].startswith('"default";r=0;t=')
    with pytest.raises(RateLimited) as caught:
        ask(gate, address="10.0.0.3")
    assert type(caught.value) is RateLimited and 1 <= caught.value.retry_after <= 59
    assert ask(gate, path="/v1/status") and ask(gate, path="/livez")
    with pytest.raises(RateLimited):
        ask(gate)


def test_the_refused_call_has_the_fields_too() -> None:
    gate = make(CLIENTS + "requests_per_minute = 1")
    ask(gate)
    call = Call(parse_head(f"GET /x HTTP/1.1\r\nHost: h.local\r\nX-Api-Key: {KEY}".encode()), SimpleNamespace(address="1.2.3.4"))
    with pytest.raises(RateLimited):
        gate.admit(call)
    assert call.principal.name == "alice" and call.headers[0][1].startswith('"default";r=0;t=')


def test_a_reload_replaces_the_keys_and_keeps_what_was_counted() -> None:
    limited = CLIENTS + "requests_per_minute = 1\n"
    gate = make(limited)
    ask(gate)
    gate.apply(loads(limited))
    with pytest.raises(RateLimited):
        ask(gate)
    gate.apply(loads(limited.replace(hashlib.sha256(KEY.encode()).hexdigest(), "ab" * 32)))
    with pytest.raises(Unauthorized):
        ask(gate)
    gate.apply(loads(""))
    assert ask(gate, "wrong").principal.name == "10.0.0.1"
    gate.apply(loads(limited))
    assert ask(gate), "whoever was taken out begins anew"
