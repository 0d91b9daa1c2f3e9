"""By which names Hermes may be called, whose pages may call, and what their browsers are told (ollama-api.md §4.3, reliability.md §2.4)."""

import socket

import pytest

from hermes.config import loads
from hermes.errors import BadRequest, CallerError, Forbidden
from hermes.frontend.http1 import parse_head
from hermes.frontend.sites import Fields, Origins, Sites, is_address, is_local

PAGE = "https://app.example.com"


def ask(*fields: str, method: str = "POST", version: str = "1.1", hosts: tuple[str, ...] = (), origins: tuple[str, ...] = (),
        reached: str = "127.0.0.1") -> Fields:
    """What every answer has to say. Raises Forbidden."""
    named = version == "1.0" or any(field.lower().startswith("host:") for field in fields)
    head = "\r\n".join([f"{method} /api/chat HTTP/{version}", *([] if named else ["Host: localhost"]), *fields])
    return Sites(Origins(origins), frozenset(hosts)).admit(parse_head(head.encode("latin-1")), lambda: reached)


def let_in(*fields: str, **rules) -> bool:
    try:
        ask(*fields, **rules)
        return True
    except CallerError as error:
        assert isinstance(error, Forbidden) or "more than one" in error.text or "malformed" in error.text
        return False


# -- Host


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:11434", "127.0.0.1", "127.0.0.1:80", "127.8.9.10", "[::1]", "[::1]:11435", "[0:0:0:0:0:0:0:1]", "0.0.0.0:1",
                                  "[::]", "10.0.0.5", "192.168.1.7:9", "172.16.0.1", "172.31.255.255", "[fd00::1]", "[FD00::1]:1", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]:80",
                                  "host.docker.internal", "Host.Docker.Internal:11435", socket.gethostname(), socket.gethostname().upper() + ":65535"])
def test_hosts_of_ours(host: str) -> None:
    assert is_local(host) and let_in(f"Host: {host}")


@pytest.mark.parametrize("host", ["evil.com", "evil.com:11434", "localhost.evil.com", "localhost.", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.01", "127.0.0.1.",
                                  "127.0.0.1.evil.com", "8.8.8.8", "[2001:4860::8888]", "169.254.169.254", "172.32.0.1", "192.0.2.1", "[fe80::1]", "[::ffff:8.8.8.8]",
                                  "box.local", "a.localhost", "ollama.internal:80", "docker.internal", "xhost.docker.internal", "host.docker.internal.", "local", "hermes",
                                  "localhost:4000/#@evil.com", "localhost@evil.com", "user@localhost", "localhost:abc", "localhost:", "localhost:123456", "localhost, evil.com",
                                  "evil.com localhost", "[::1", "::1", "[127.0.0.1]", "[.]", "[localhost]x", "127.0.0.1%eth0", "evillocal", "xlocalhost", "\xe9.local", "localhost?x", ":80", ""])
def test_hosts_of_others(host: str) -> None:
    assert not is_local(host) and not let_in(f"Host: {host}")
    assert not let_in(f"Host: {host}", hosts=("hermes.example.com",)) and not let_in(f"Host: {host}", reached="10.0.0.5"), "wherever Hermes listens"


@pytest.mark.parametrize("host", [None, ""])
def test_who_speaks_http_1_0_need_not_name_anybody(host: str | None) -> None:
    fields = [] if host is None else [f"Host: {host}"]
    assert ask(*fields, version="1.0") == ()
    assert not let_in(*fields, "Origin: http://", version="1.0"), "that is no page of nobody's"
    assert not let_in("Host: evil.com", version="1.0") and not let_in("Host: :80", version="1.0")


@pytest.mark.parametrize(("listed", "hosts"), [
    ("hermes.example.com", ["hermes.example.com", "Hermes.Example.COM:443"]), ("8.8.8.8", ["8.8.8.8", "8.8.8.8:11435"]), ("2001:4860::8888", ["[2001:4860::8888]:1", "[2001:4860:0::8888]"]),
    ("hermes", ["hermes", "HERMES:11435"]), ("box.local", ["Box.local"]),
])
def test_listed_hosts(listed: str, hosts: list[str]) -> None:
    for host in hosts:
        assert let_in(f"Host: {host}", hosts=("other.example", listed)) and not let_in(f"Host: {host}")
    for host in ("evil.com", f"x{listed}", f"{listed}.", f"{listed}.evil.com", f"a.{listed}", f"{hosts[0]}@evil.com", listed[:-1]):
        assert not let_in(f"Host: {host}", hosts=(listed,))
    assert let_in("Host: localhost", hosts=(listed,)), "they are more names, not the only ones"


@pytest.mark.parametrize(("reached", "host"), [("203.0.113.7", "203.0.113.7:11435"), ("::ffff:203.0.113.7", "203.0.113.7"), ("2001:db8::7", "[2001:DB8:0::7]:11435"),
                                               ("fe80::1%eth0", "[fe80::1]")])
def test_the_address_that_was_reached_is_ours(reached: str, host: str) -> None:
    assert let_in(f"Host: {host}", reached=reached)
    assert not let_in(f"Host: {host}", reached="203.0.113.8")
    assert not let_in("Host: evil.com", reached=reached)


def test_nobody_asks_for_the_address_without_need() -> None:
    def never() -> str:
        raise AssertionError
    for host in ("localhost", "127.0.0.1", "hermes.example.com", "evil.com", "[2001:db8::7]"):
        request = parse_head(f"GET / HTTP/1.1\r\nHost: {host}".encode())
        sites = Sites(Origins(()), frozenset({"hermes.example.com", "2001:db8::7"}))
        if host == "evil.com":
            with pytest.raises(Forbidden):
                sites.admit(request, never)
        else:
            assert sites.admit(request, never) == ()


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", True), ("127.0.0.1:80", True), ("[::1]:80", True), ("8.8.8.8", True), ("localhost", False), ("", False), (":80", False),
                                               ("1.2.3", False), ("no host", False), ("[127.0.0.1]", False)])
def test_addresses(host: str, address: bool) -> None:
    assert is_address(host) == address


# -- Origin


@pytest.mark.parametrize("origin", ["http://localhost", "https://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:1", "http://0.0.0.0", "HTTP://LOCALHOST",
                                    "app://x", "file://", "tauri://localhost", "vscode-webview://abc", "vscode-file://x"])
def test_origins_of_ours(origin: str) -> None:
    assert let_in(f"Origin: {origin}")


FOREIGN = ["http://evil.com", "null", "", "http://localhost.evil.com", "http://localhost@evil.com", "http://evil.com/http://localhost", "http://127.0.0.1.evil.com",
           "http://localhost:", "http://localhost:1/x", "http://localhost:abc", "http://127.0.0.2", "xhttp://localhost", "ftp://localhost", "http://localhost, http://evil.com",
           "chrome-extension://x", "APP", "app:x", "app://x, http://evil.com", "http://localhost:1 http://evil.com"]


@pytest.mark.parametrize("origin", FOREIGN)
def test_origins_of_others(origin: str) -> None:
    for added in ((), ("https://other.example",)):
        assert not let_in(f"Origin: {origin}", origins=added)


@pytest.mark.parametrize("origin", [PAGE, *FOREIGN])
def test_a_star_alone_is_everybody(origin: str) -> None:
    fields = ask(f"Origin: {origin}", origins=("*",))
    assert dict(fields)["Access-Control-Allow-Origin"] == "*" and "Vary" not in dict(fields)
    assert ask(f"Origin: {origin}", origins=(PAGE, "*")) == fields


@pytest.mark.parametrize(("added", "allowed", "refused"), [
    (PAGE, [PAGE, PAGE.upper()], ["http://app.example.com", PAGE + ":444", PAGE + ".evil.com", "https://appxexample.com"]),
    ("https://*.example.org", ["https://a.example.org", "https://a.b.example.org"], ["https://example.org", "http://a.example.org", "https://a.example.org.evil.com", "https://a.example.org:1"]),
    ("http://10.0.0.5:*", ["http://10.0.0.5", "http://10.0.0.5:80", "http://10.0.0.5:65535"], ["http://10.0.0.5:x", "http://10.0.0.50", "http://10.0.0.5:80.evil.com", "http://10.0.0.5:"]),
    ("chrome-extension://*", ["chrome-extension://abc"], ["moz-extension://abc", "chrome-extension:abc"]), ("*.example.net", ["https://x.example.net", "app2://x.example.net"], ["https://example.net"]),
    ("http*://x.example", ["http://x.example", "https://x.example"], ["ftp://x.example"]),
])
def test_added_origins(added: str, allowed: list[str], refused: list[str]) -> None:
    for origin in allowed:
        assert dict(ask(f"Origin: {origin}", origins=("https://first.example", added)))["Access-Control-Allow-Origin"] == origin
    for origin in refused:
        assert not let_in(f"Origin: {origin}", origins=(added,)), origin


def test_two_origins_are_none_of_ours() -> None:
    assert not let_in("Origin: http://localhost", "Origin: http://evil.com")
    assert not let_in("Origin: app://x", "Origin: http://evil.com")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_origin_that_is_the_host_is_no_other_site(scheme: str) -> None:
    for host in ("10.0.0.5:11435", "host.docker.internal", "hermes.example.com", "203.0.113.7"):
        rules = {"hosts": ("hermes.example.com",), "reached": "203.0.113.7"}
        assert ask(f"Host: {host}", f"Origin: {scheme}://{host}", **rules) == ()
        assert not let_in(f"Host: {host}", f"Origin: {scheme}://{host}1", **rules)
    assert not let_in("Host: evil.com", f"Origin: {scheme}://evil.com"), "a rebound name is the foreign page's own"


# -- what is told


def test_without_an_origin_nothing_is_said() -> None:
    assert ask() == ask(method="OPTIONS") == ask(origins=("*",)) == ()


def test_what_an_allowed_page_is_told() -> None:
    fields = ask(f"Origin: {PAGE}", origins=(PAGE,))
    assert fields == (("Access-Control-Allow-Origin", PAGE),
                      ("Access-Control-Expose-Headers", "Retry-After,RateLimit,RateLimit-Policy,X-Request-ID,request-id,X-Hermes-Queue-Position,X-Hermes-Queue-Wait,X-Hermes-Queue-Depth,X-Hermes-Cache,X-Hermes-Worker,X-Hermes-Model"),
                      ("Vary", "Origin"))


OLLAMAS = ("Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,"
           "X-Stainless-Lang,X-Stainless-Os,X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,X-Stainless-Runtime-Version,X-Stainless-Timeout")
FORGOTTEN = {"x-api-key", "anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access", "x-stainless-read-timeout", "last-event-id", "x-request-id",
             "x-hermes-class", "x-hermes-deadline"}


@pytest.mark.parametrize("everybody", [False, True])
def test_what_a_preflight_is_told(everybody: bool) -> None:
    fields = ask("Origin: http://localhost:3000", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-api-key", "Access-Control-Request-Private-Network: true",
                 method="OPTIONS", origins=("*",) if everybody else ())
    told = dict(fields)
    assert (told["Access-Control-Allow-Methods"], told["Access-Control-Max-Age"]) == ("GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS", "43200")
    assert told["Access-Control-Allow-Headers"].startswith(OLLAMAS + ",")
    assert {name.lower() for name in told["Access-Control-Allow-Headers"].removeprefix(OLLAMAS + ",").split(",")} == FORGOTTEN
    assert told["Access-Control-Allow-Origin"] == ("*" if everybody else "http://localhost:3000")
    assert [value for name, value in fields if name == "Vary"] == ([] if everybody else ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"])
    assert not {"Access-Control-Allow-Credentials", "Access-Control-Allow-Private-Network"} & set(told)
    assert len(fields) == 4 + 3 * (not everybody)


def test_a_refused_page_may_not_read_why() -> None:
    """A CORS header on the refusal would be one on everything."""
    with pytest.raises(Forbidden, match=r"this Host is not allowed; \[server\] hosts, or HERMES_SERVER_HOSTS, may list it"):
        ask("Host: evil.com", f"Origin: {PAGE}", origins=(PAGE,))
    with pytest.raises(Forbidden, match="Origin"):
        ask("Origin: http://evil.com", method="OPTIONS", origins=(PAGE,))


@pytest.mark.parametrize(("site", "expected"), [("cross-site", False), ("same-site", True), ("same-origin", True), ("none", True)])
def test_fetch_site(site: str, expected: bool) -> None:
    assert let_in(f"Sec-Fetch-Site: {site}") == expected
    assert let_in(f"Sec-Fetch-Site: {site}", "Origin: http://localhost:3000") == expected, "Ollama's list is nobody's choice"
    assert let_in(f"Sec-Fetch-Site: {site}", f"Origin: {PAGE}", origins=(PAGE,)) and let_in(f"Sec-Fetch-Site: {site}", f"Origin: {PAGE}", origins=("*",))
    assert let_in(f"Sec-Fetch-Site: {site}", "Origin: http://localhost:3000", origins=("http://localhost:*",))
    assert let_in(f"Sec-Fetch-Site: {site}", origins=("*",)) == expected, "a picture in a page has no Origin"


def test_what_the_configuration_says_is_what_counts() -> None:
    server = loads('[server]\nhosts = ["Hermes.Example.com", "[2001:DB8::1]"]\norigins = ["HTTPS://App.Example.com", "http://10.0.0.5:*"]').server
    assert let_in("Host: hermes.example.com:443", f"Origin: {PAGE}", hosts=server.hosts, origins=server.origins)
    assert let_in("Host: [2001:db8::1]:443", "Origin: http://10.0.0.5:3000", hosts=server.hosts, origins=server.origins)
