"""Keys: which forms are taken, what every other form gets, and what an identity may."""

import base64
import hashlib
import hmac
from dataclasses import replace

import pytest

from hermes.config import loads
from hermes.errors import ClientForbidden, Unauthorized
from hermes.frontend import principal
from hermes.frontend.http1 import parse_head
from hermes.frontend.principal import NOBODY, Keys, Principal, presented
from hermes.names import canonical

ALICE, BOB = "hk-alice_0123456789-abcdef", "hk-bob"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


SETTINGS = loads(f"""
[clients.alice]
key_sha256 = "{digest(ALICE)}"
weight = 2
manage = true
[clients.bob]
key_sha256 = "{digest(BOB)}"
max_class = "background"
max_concurrency = 1
requests_per_minute = 2
tokens_per_day = 3
models = ["gemma*", "hf.co/*"]
""")
KEYS = Keys(SETTINGS.clients, manage=True, pull=True)


def headers(*fields: str) -> dict[str, str]:
    return parse_head("\r\n".join(["GET / HTTP/1.1", "Host: h", *fields]).encode("latin-1")).headers


def basic(text: str) -> str:
    return "Authorization: Basic " + base64.b64encode(text.encode("latin-1")).decode()


@pytest.mark.parametrize("fields", [
    [f"Authorization: Bearer {ALICE}"], [f"authorization: bearer {ALICE}"], [f"Authorization: BEARER   {ALICE}  "],
    [f"X-API-Key: {ALICE}"], [f"x-api-key:{ALICE} "],
    [basic(f"anybody:{ALICE}")], [basic(f":{ALICE}")], [basic(f"{ALICE}:")], [basic(f"\xe9:{ALICE}")], [basic(f"anybody:{ALICE}").replace("Basic", "bAsIc")],
    [f"Authorization: Bearer {ALICE}", f"x-api-key: {ALICE}"], [basic(f"u:{ALICE}"), f"x-api-key: {ALICE}"],
])
def test_the_forms_of_a_key(fields: list[str]) -> None:
    assert KEYS.identify(headers(*fields), "10.0.0.1").name == "alice"


WRONG = [
    [], ["Authorization: "], ["Authorization: Bearer"], ["Authorization: Bearer "], ["x-api-key: "], [f"Authorization: {ALICE}"],
    [f"Authorization: Token {ALICE}"], [f"Authorization: Bearer{ALICE}"], [f"Authorization: Bearer {ALICE[:-1]}"], [f"Authorization: Bearer {ALICE}x"],
    [f"Authorization: Bearer {ALICE.upper()}"], [f"Authorization: Bearer {digest(ALICE)}"], ["Authorization: Bearer ollama"],
    ["Authorization: Bearer \xe9\xff"], ["x-api-key: \xe9"], [f"Authorization: Bearer \xa0{ALICE}"], [f"Authorization: Bearer {ALICE} {ALICE}"],
    ["Authorization: Bearer " + "k" * 8000], ["x-api-key: " + "k" * 8000],
    [f"Authorization: Bearer {ALICE}", f"Authorization: Bearer {ALICE}"], [f"Authorization: Bearer {ALICE}", f"Authorization: Bearer {BOB}"],
    [f"x-api-key: {ALICE}", f"x-api-key: {ALICE}"], [f"Authorization: Bearer {ALICE}", f"x-api-key: {BOB}"], [f"Authorization: Bearer {ALICE}", "x-api-key: "],
    ["Authorization: ", f"x-api-key: {ALICE}"], ["Authorization: Bearer wrong", f"x-api-key: {ALICE}"],
    ["Authorization: Basic"], ["Authorization: Basic !!!"], [f"Authorization: Basic {ALICE}"], ["Authorization: Basic YQ"], ["Authorization: Basic \xe9"],
    [basic(ALICE)], [basic(":")], [basic(f"{ALICE}:wrong")], [basic(f"{ALICE}:x:")], [basic(f"u:x:{ALICE}")], [basic(f"u:{ALICE}\n")], [basic(f"u:\xe9{ALICE}")],
    [basic(f"u:{ALICE}").replace("Basic ", "Basic !")], [basic(f"u:{ALICE}") + "\xe9"],
    ['Authorization: Digest username="a"'],
]


@pytest.mark.parametrize("fields", WRONG)
def test_every_other_form_is_one_refusal(fields: list[str]) -> None:
    with pytest.raises(Unauthorized) as caught:
        KEYS.identify(headers(*fields), "10.0.0.1")
    assert vars(caught.value) == vars(Unauthorized()) and caught.value.headers == (("WWW-Authenticate", "Bearer"),)


@pytest.mark.parametrize("fields", [*WRONG, [f"x-api-key: {ALICE}"], [f"x-api-key: {BOB}"]])
def test_every_form_is_compared_with_every_key(fields: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(principal.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    try:
        KEYS.identify(headers(*fields), "")
    except Unauthorized:
        pass
    assert [known.hex() for known, _ in compared] == [client.key_sha256 for client in SETTINGS.clients]
    assert len({given for _, given in compared}) == 1 and all(len(given) == 32 for _, given in compared)


def test_the_hash_of_nothing_opens_nothing() -> None:
    [client] = loads(f'[clients.a]\nkey_sha256 = "{"ab" * 32}"').clients
    keys = Keys((replace(client, key_sha256=hashlib.sha256().hexdigest()),), False, False)
    with pytest.raises(Unauthorized):
        keys.identify({}, "")


def test_a_key_of_ones_own_may_have_any_sign_but_a_comma() -> None:
    assert presented({"x-api-key": "!~+:%"}) == b"!~+:%"
    assert presented({"authorization": "Basic " + base64.b64encode(b"u:a:b").decode()}) == b"a:b"
    assert presented({"x-api-key": "a,b"}) == b""


def test_without_clients_everybody_is_his_address() -> None:
    for fields in (*WRONG, [f"x-api-key: {ALICE}"]):
        assert Keys((), False, False).identify(headers(*fields), "10.0.0.7") == Principal("10.0.0.7")
    assert Keys((), False, False).names == frozenset()


@pytest.mark.parametrize(("manage", "pull", "expected"), [(False, False, (False, False)), (False, True, (False, True)), (True, False, (True, True))])
def test_what_everybody_may_without_clients(manage: bool, pull: bool, expected: tuple[bool, bool]) -> None:
    anyone = Keys((), manage, pull).identify({}, "::1")
    assert (anyone.manage, anyone.pull) == expected and anyone.may_use(())


def test_an_identity_is_its_table() -> None:
    alice, bob = (KEYS.identify({"x-api-key": key}, "") for key in (ALICE, BOB))
    assert alice == Principal("alice", 2.0, 0, 1, None, None, None, ("*",), manage=True, pull=True)
    assert bob == Principal("bob", 1.0, 2, 2, 1, 2, 3, ("registry.ollama.ai/library/gemma*", "hf.co/*/*"), manage=False, pull=False)
    assert KEYS.names == {"alice", "bob"}


def test_models() -> None:
    bob = KEYS.identify({"x-api-key": BOB}, "")
    assert bob.may_use([canonical("gemma3:270m")]) and bob.may_use([canonical("hf.co/u/r:Q4")])
    assert bob.may_use([canonical("other"), canonical("gemma")]), "by any of its names"
    assert not bob.may_use([canonical("llama3.2")]) and not bob.may_use(())
    assert Principal("x").may_use(()) and Principal("x").may_use([canonical("m")])


def test_nobody_may_nothing() -> None:
    assert not NOBODY.may_use([canonical("m")]) and not NOBODY.may_use(()) and not NOBODY.manage and not NOBODY.pull
    assert vars(ClientForbidden()) == {"text": "this client may not do that"}
