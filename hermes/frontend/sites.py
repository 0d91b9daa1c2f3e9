"""By which names Hermes may be called, and whose pages may call: the Host and Origin rules, and what browsers are told (CORS). Pure.

A browser on the same host is the danger of a service on loopback, and one in the same network of any other (reliability.md §2.4): a foreign page
may post to it without asking, and DNS rebinding lets it read the answers. The rules for origins are Ollama's (ollama-api.md §4.3), but that a
wildcard matches only what it says. Those for hosts are stricter: whoever can give himself a name in .local or .internal could rebind it, and an
address of the network is no protection against a browser inside it; so the names are exact, and they are always asked for.
"""

import ipaddress
import re
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from hermes.errors import Forbidden
from hermes.frontend.http1 import Request

Fields = tuple[tuple[str, str], ...]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
ALLOW_ORIGIN = "Access-Control-Allow-Origin"

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_.\-]+))(?::[0-9]{1,5})?\Z")
# Names of this machine that nobody else can have: no public DNS has them. The last is what a container calls it.
_LOCAL_NAMES = ("localhost", "host.docker.internal")
# What Go calls private; Python's is_private has more, such as the address where clouds keep their secrets.
_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))

_OLLAMAS = ("http://localhost:*", "https://localhost:*", "http://127.0.0.1:*", "https://127.0.0.1:*", "http://0.0.0.0:*", "https://0.0.0.0:*",
            "http://[::1]:*", "https://[::1]:*", "app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*")
_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_HEADERS = ("Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "Openai-Beta",
            *("X-Stainless-" + name for name in ("Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "Os", "Package-Version",
                                                 "Poll-Helper", "Retry-Count", "Runtime", "Runtime-Version", "Timeout")),
            # What Ollama forgets: without these no page can use Anthropic's library, or say what Hermes asks for.
            "X-Stainless-Read-Timeout", "X-Api-Key", "Anthropic-Version", "Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access",
            "Last-Event-Id", "X-Request-Id", "X-Hermes-Class", "X-Hermes-Deadline")
# A page sees no other header of ours than these; "*" would do in most browsers, but hides the list from who reads the answer.
_EXPOSED = ("Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID", "request-id", "X-Hermes-Queue-Position", "X-Hermes-Queue-Wait",
            "X-Hermes-Queue-Depth", "X-Hermes-Cache", "X-Hermes-Worker", "X-Hermes-Model")
_EXPOSE: Fields = (("Access-Control-Expose-Headers", ",".join(_EXPOSED)),)
_PREFLIGHT: Fields = (("Access-Control-Allow-Methods", _METHODS), ("Access-Control-Allow-Headers", ",".join(_HEADERS)),
                      ("Access-Control-Max-Age", "43200"))
_VARY: Fields = (("Vary", "Origin"),)
_VARY_PREFLIGHT: Fields = (*_VARY, ("Vary", "Access-Control-Request-Method"), ("Vary", "Access-Control-Request-Headers"))


class Origins:
    """Whose pages may call: Ollama's own list, and what the configuration adds. Immutable."""

    def __init__(self, added: tuple[str, ...]):
        self._everybody = "*" in added
        self._added = _pattern(added)
        self._allowed = _pattern((*_OLLAMAS, *added))

    def adds(self, origin: str) -> bool:
        """Has the configuration named it?"""
        return bool(self._added.fullmatch(origin))

    def allows(self, origin: str) -> bool:
        return bool(self._allowed.fullmatch(origin))

    def fields(self, origin: str, preflight: bool) -> Fields:
        """What the browser of an allowed page is told. Never that it may send cookies, and never that a page of the internet may reach into a
        private network: that would be Access-Control-Allow-Private-Network, which is asked for and not granted."""
        more = _PREFLIGHT if preflight else _EXPOSE
        if self._everybody:
            return ((ALLOW_ORIGIN, "*"), *more)
        return ((ALLOW_ORIGIN, origin), *more, *(_VARY_PREFLIGHT if preflight else _VARY))


def _pattern(origins: tuple[str, ...]) -> re.Pattern[str]:
    """One for all of them; of none it matches nothing."""
    return re.compile("|".join(map(_expression, origins)) or r"(?!)", re.IGNORECASE)


def _expression(origin: str) -> str:
    """A star is anything an origin may have in it; as a port it is any, the scheme's own included, which is not written; alone it is all there is."""
    if origin == "*":
        return ".*"
    if origin.endswith("://*"):
        return re.escape(origin[:-1]) + r"[^\s,]*"
    if origin.endswith(":*"):
        return re.escape(origin[:-2]) + r"(?::[0-9]{1,5})?"
    return r"[^\s,]*".join(map(re.escape, origin.split("*")))


class Sites(NamedTuple):
    """The rules of a configuration. `hosts` are more names of ours, lower case, IPv6 addresses without brackets."""

    origins: Origins
    hosts: frozenset[str]

    def admit(self, request: Request, reached: Callable[[], str]) -> Fields:
        """What every answer to the request has to say. `reached` is asked for the address of ours that the client has connected to.
        Raises Forbidden.

        HTTP/1.0 has no Host, and there may be none: load balancers look so whether Hermes lives, and no browser speaks it. In HTTP/1.1 an empty
        one is none of ours. An Origin that is the Host is the page's own server, and no other site.
        """
        headers = request.headers
        host, origin = headers.get("host", ""), headers.get("origin")
        if (host or request.http11) and not self._is_ours(host, reached):
            raise Forbidden("this Host is not allowed; [server] hosts, or HERMES_SERVER_HOSTS, may list it")
        if headers.get("sec-fetch-site") == "cross-site" and not (origin and self.origins.adds(origin)):
            raise Forbidden("requests from other sites are refused; [server] origins, or HERMES_SERVER_ORIGINS, may list theirs")
        if origin is None or host and origin in (f"http://{host}", f"https://{host}"):
            return ()
        if not self.origins.allows(origin):
            raise Forbidden("this Origin is not allowed; [server] origins, or HERMES_SERVER_ORIGINS, may list it")
        return self.origins.fields(origin, preflight=request.method == "OPTIONS")

    def _is_ours(self, host: str, reached: Callable[[], str]) -> bool:
        if is_local(host):
            return True
        named = _named(host)
        if named is None or isinstance(named, str):
            return named in self.hosts
        return str(named) in self.hosts or named == _address(reached())


def is_address(host: str) -> bool:
    """Is a Host header's host an IP address, and no name?"""
    return not isinstance(_named(host), str | None)


@lru_cache(maxsize=256)
def is_local(host: str) -> bool:
    """Does a Host header name this machine, or an address that only this machine or its network has?"""
    named = _named(host)
    if named is None or isinstance(named, str):
        return named is not None and named in (*_LOCAL_NAMES, socket.gethostname().lower())
    return named.is_loopback or named.is_unspecified or any(named in network for network in _PRIVATE)


def _named(host: str) -> str | Address | None:
    """What a Host header has beside a port: an address, a name in lower case, or, where it can be neither, None.

    An address is four decimal numbers, or IPv6 in brackets, as browsers write it. 127.1 and 0x7f000001, which a resolver may take for one, are
    names, and nobody's.
    """
    match = _HOST.match(host)
    if not match:
        return None
    if match["v6"]:
        return _address(match["v6"]) if ":" in match["v6"] else None
    return _address(match["name"]) or match["name"].lower()


def _address(text: str) -> Address | None:
    """The address, an IPv4 one that is written as IPv6 as what it is."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
