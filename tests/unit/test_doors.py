"""Which routes and which rights are at which door, where managing has an address of its own. Tables, from the real ones."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from hermes import application
from hermes.config import is_client_name, loads
from hermes.dispatch.limits import WRONG_KEYS
from hermes.errors import ClientForbidden, Forbidden, LockedOut, MethodNotAllowed, NotFound, RateLimited, Unauthorized
from hermes.frontend.exchange import Call
from hermes.frontend.gate import OWNER, Gate, OwnersGate
from hermes.frontend.house import House
from hermes.frontend.http1 import parse_head
from hermes.frontend.listeners import Listeners
from hermes.frontend.principal import NOBODY
from hermes.frontend.router import Router

ONE: Router = application.Application._router(SimpleNamespace(dispatcher=None, live=None, _whose=None))
FRONT, ADMIN = ONE.without("only"), ONE.without("not")
BOTH = {"/livez", "/readyz", "/v1/status", "/v1/usage", "/v1/requests/{id}", "/", "/api/version"}
MANAGING = {"/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs/{digest}", "/v1/llm/{model}/pull", "/v1/llm/{model}/pause",
            "/v1/llm/{model}/resume"}


def paths(router: Router) -> set[str]:
    return {route.path for route in router.routes}


def test_every_route_is_at_one_door_or_both() -> None:
    assert paths(ADMIN) == MANAGING | BOTH and paths(FRONT) == paths(ONE) - MANAGING
    assert set(FRONT.routes) | set(ADMIN.routes) == set(ONE.routes)
    assert not any(route.infers for route in ADMIN.routes)


def test_a_path_is_there_with_all_its_methods_or_with_none() -> None:
    for path in paths(ONE):
        assert len({route.admin for route in ONE.routes if route.path == path}) == 1, path


@pytest.mark.parametrize("route", ONE.routes, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS"])
def test_what_is_not_there_is_not_found_by_any_method(route, method: str) -> None:
    path = route.path.replace("{model}", "hf.co/u/r:Q4").replace("{digest}", "sha256:0").replace("{id}", "r")
    for router in (FRONT, ADMIN):
        if route not in router.routes:
            for spelled in (path, path + "/"):
                with pytest.raises(NotFound):
                    router.match(method, spelled)
        elif method == route.method:
            assert router.match(method, path) == ONE.match(method, path)


def test_doubled_slashes_lead_nowhere_either() -> None:
    for path in ("//api/pull", "/api//pull", "/v1/llm//m/pull", "/v1/llm/m//pull", "/v1/llm/m/./pause"):
        assert ONE.match("POST", path)[0].path == path, "redirected"
        with pytest.raises(NotFound):
            FRONT.match("POST", path)


def test_a_name_that_only_looks_like_it_is_still_a_name() -> None:
    for path, name in (("/v1/llm/pull", "pull"), ("/v1/llm/m%2Fpull", "m/pull"), ("/v1/llm/m/pull:7b", "m/pull:7b")):
        assert FRONT.match("POST", path)[1] == name
        with pytest.raises(NotFound):
            ADMIN.match("POST", path)
    with pytest.raises(MethodNotAllowed):
        FRONT.match("DELETE", "/v1/llm/m")


# -- listeners


def make_house(router: Router, admit) -> House:
    return House(router, None, admit, lambda *note: None, lambda: False)


@contextmanager
def listening(text: str) -> Iterator[Listeners]:
    listeners = Listeners(loads('[server]\nlisten = "127.0.0.1:0"\n' + text), ONE, make_house)
    try:
        yield listeners
    finally:
        for server in filter(None, (listeners.front, listeners.admin)):
            server.server_close()


def test_one_door_or_two(tmp_path: Path) -> None:
    with listening("") as one:
        assert one.admin is None and one.front.house.router is ONE
    for admin in ("127.0.0.1:0", f"unix:{tmp_path}/a"):
        with listening(f'[admin]\nlisten = "{admin}"') as two:
            assert (paths(two.front.house.router), paths(two.admin.house.router)) == (paths(FRONT), paths(ADMIN))
            assert two.admin.house.waiting is not two.front.house.waiting
            assert two.open == 0 and two.front.url.startswith("http://127.0.0.1:")
    assert list(tmp_path.iterdir()) == []


def test_a_second_address_that_cannot_be_had_lets_the_first_one_go(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), listening(f'[admin]\nlisten = "unix:{tmp_path}/no/a"'):
        pass
    with listening("") as other, pytest.raises(OSError), listening(f'[admin]\nlisten = "127.0.0.1:{other.front.server_port}"'):
        pass


def test_what_a_reload_may_not_open() -> None:
    """This process listens on the network, whatever the file says by now."""
    text = '[server]\nlisten = "0.0.0.0:0"\nopen = true\n[admin]\nlisten = "0.0.0.0:0"\n' + CLIENTS
    listeners = Listeners(loads(text), ONE, make_house)
    try:
        assert listeners.refusal(loads(CLIENTS)) is None
        assert "without clients [server] open must be true" in listeners.refusal(loads(""))
        assert "takes clients" in listeners.refusal(loads("[server]\nopen = true"))
    finally:
        listeners.front.server_close()
        listeners.admin.server_close()


# -- gates


ALICE, BOB = "hk-alice", "hk-bob"
CLIENTS = "".join(f'[clients.{name}]\nkey_sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\nrequests_per_minute = 4\nmanage = {manage}\n'
                  for name, key, manage in (("alice", ALICE, "true"), ("bob", BOB, "false")))


def ask(gate: Gate | OwnersGate, key: str = "", path: str = "/api/pull", *fields: str) -> Call:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *fields, *([f"Authorization: Bearer {key}"] if key else [])]
    call = Call(parse_head("\r\n".join(lines).encode()), SimpleNamespace(address="10.0.0.1", reached=lambda: "127.0.0.1"))
    gate.admit(call)
    return call


def doors(text: str, on_loopback: bool = True) -> tuple[Gate, Gate]:
    front = Gate(loads(text), on_loopback, "front")
    return front, Gate(loads(text), on_loopback, "admin", front)


def test_nobody_manages_at_the_front() -> None:
    for text, key in ((CLIENTS, ALICE), ("[server]\nmanage = true", "")):
        front, admin = doors(text)
        assert (ask(front, key).principal.manage, ask(front, key).principal.pull) == (False, False)
        assert (ask(admin, key).principal.manage, ask(admin, key).principal.pull) == (True, True)
        assert ask(Gate(loads(text), True), key).principal.manage, "with one door it is that one"


@pytest.mark.parametrize("path", ["/api/pull", "/v1/status", "/v1/usage", "/nope", "/api/generate"])
def test_only_who_may_manage_comes_in_by_the_other(path: str) -> None:
    _, admin = doors(CLIENTS)
    with pytest.raises(ClientForbidden):
        ask(admin, BOB, path)
    for key in ("", "wrong"):
        with pytest.raises(Unauthorized):
            ask(admin, key, path)
    assert ask(admin, ALICE, path).principal.name == "alice"
    assert ask(admin, "", "/livez").principal is NOBODY


def test_without_clients_it_is_as_the_configuration_says() -> None:
    """On the network that is not even a configuration; a reload could leave it behind."""
    assert (lambda who: (who.manage, who.pull))(ask(doors("")[1]).principal) == (False, True)
    with pytest.raises(ClientForbidden):
        ask(doors("", on_loopback=False)[1])


def test_rates_and_guesses_are_counted_at_both_doors_together() -> None:
    front, admin = doors(CLIENTS)
    for gate in (front, admin) * 2:
        ask(gate, ALICE)
    for gate in (front, admin):
        with pytest.raises(RateLimited):
            ask(gate, ALICE)
    for number in range(WRONG_KEYS):
        with pytest.raises(Unauthorized):
            ask((front, admin)[number % 2], "wrong")
    for gate in (front, admin):
        with pytest.raises(LockedOut):
            ask(gate, BOB)


def test_a_reload_reaches_both_and_changes_no_door() -> None:
    front, admin = doors("")
    for gate in (front, admin):
        gate.apply(loads(CLIENTS))
    assert not ask(front, ALICE).principal.manage and ask(admin, ALICE).principal.manage
    with pytest.raises(Forbidden):
        ask(admin, BOB)


def test_who_may_open_the_socket_is_its_owner() -> None:
    gate = OwnersGate()
    gate.apply(loads(CLIENTS))
    for key in ("", BOB, "wrong"):
        assert ask(gate, key).principal is OWNER and OWNER.manage and OWNER.pull
    assert not is_client_name(OWNER.name), "no client can be taken for it"
