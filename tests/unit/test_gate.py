"""The gate: the rules of the present configuration, applied to a call; keys, lock-outs and rates."""

import hashlib
from types import SimpleNamespace

import pytest

from hermes.application import Application
from hermes.config import loads
from hermes.dispatch.limits import WRONG_KEYS
from hermes.errors import Draining, Forbidden, LockedOut, RateLimited, Unauthorized
from hermes.frontend.exchange import Call
from hermes.frontend.gate import Gate
from hermes.frontend.http1 import parse_head
from hermes.frontend.principal import NOBODY


def call(*fields: str, reached: str = "127.0.0.1") -> Call:
    return Call(parse_head("\r\n".join(["GET / HTTP/1.1", *fields]).encode()), SimpleNamespace(address="10.0.0.1", reached=lambda: reached))


def test_what_the_answer_has_to_say_is_noted() -> None:
    gate, page = Gate(loads(""), on_loopback=True), call("Host: localhost", "Origin: app://x")
    page.headers = (("X-Request-ID", "1"),)
    gate.admit(page)
    assert page.headers[0] == ("X-Request-ID", "1") and dict(page.headers)["Access-Control-Allow-Origin"] == "app://x"


def test_reload() -> None:
    gate = Gate(loads(""), on_loopback=True)
    for fields in (("Host: hermes.example",), ("Host: localhost", "Origin: https://a.example")):
        with pytest.raises(Forbidden):
            gate.admit(call(*fields))
    gate.apply(loads('[server]\nhosts = ["hermes.example"]\norigins = ["https://a.example"]'))
    gate.admit(call("Host: hermes.example", "Origin: https://a.example"))
    gate.apply(loads(""))
    with pytest.raises(Forbidden):
        gate.admit(call("Host: hermes.example"))


@pytest.mark.parametrize("on_loopback", [True, False])
def test_hosts_count_wherever_hermes_listens(on_loopback: bool) -> None:
    gate = Gate(loads(""), on_loopback=on_loopback)
    for host in ("evil.example", "box.local", ""):
        with pytest.raises(Forbidden):
            gate.admit(call(f"Host: {host}"))
    gate.admit(call("Host: 203.0.113.7", reached="203.0.113.7"))


def test_a_page_can_read_that_hermes_is_stopping() -> None:
    gate, stopping = Gate(loads(""), on_loopback=True), SimpleNamespace(serving=lambda: False)
    page, foreign = call("Host: localhost", "Origin: app://x"), call("Host: localhost", "Origin: https://evil.example")
    with pytest.raises(Draining):
        Application._admit(stopping, gate.admit, page)
    assert dict(page.headers)["Access-Control-Allow-Origin"] == "app://x"
    with pytest.raises(Forbidden):
        Application._admit(stopping, gate.admit, foreign)


# -- keys, lock-outs and rates


KEY = "hk-the-key-of-alice"
CLIENTS = f'[clients.alice]\nkey_sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n'


def ask(gate: Gate, key: str | None = KEY, path: str = "/api/tags", address: str = "10.0.0.1", **more: str) -> Call:
    fields = {"Host": "localhost", **({"Authorization": f"Bearer {key}"} if key is not None else {}), **more}
    head = f"GET {path} HTTP/1.1\r\n" + "\r\n".join(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())
    call = Call(parse_head(head.encode("latin-1")), SimpleNamespace(address=address, reached=lambda: address))
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
    call = Call(parse_head(f"GET /x HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {KEY}".encode()), SimpleNamespace(address="1.2.3.4", reached=lambda: "1.2.3.4"))
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


def test_a_preflight_needs_no_key() -> None:
    """A browser sends none; what it learns is in the README. The lock-out and the rate are not touched either."""
    gate = make(CLIENTS + "requests_per_minute = 1")
    for number in range(WRONG_KEYS + 1):
        preflight = Call(parse_head(b"OPTIONS /api/chat HTTP/1.1\r\nHost: localhost\r\nOrigin: app://x"), SimpleNamespace(address="10.0.0.1", reached=lambda: "10.0.0.1"))
        gate.admit(preflight)
        assert preflight.principal is NOBODY and "Access-Control-Allow-Methods" in dict(preflight.headers)
    assert ask(gate)


def test_a_page_can_read_that_its_key_is_wrong() -> None:
    page = call("Host: localhost", "Origin: app://x", "X-Api-Key: wrong")
    with pytest.raises(Unauthorized):
        make(CLIENTS).admit(page)
    assert dict(page.headers)["Access-Control-Allow-Origin"] == "app://x"
