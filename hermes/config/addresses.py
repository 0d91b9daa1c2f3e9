"""Network addresses as people write them: where to listen, where Ollama is, and whether the two are one. Pure.

Nothing here asks DNS: a configuration must mean the same on every start.
"""

import ipaddress
import os
import re
from types import MappingProxyType
from urllib.parse import urlsplit

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253})")
_PORTS = MappingProxyType({"http": 80, "https": 443})
_OLLAMA_PORT = 11434
_UNIX = "unix:"
_LONGEST_PATH = 107  # bytes of a Unix socket's path: sun_path without its last one
_EVERY_ADDRESS = ("", "0.0.0.0", "::")


def listen_address(text: str) -> tuple[str, int]:
    """(host, port) of "host:port"; the host is "" for every address. Port 0 asks for any free one.

    Raises ValueError: what is wanted.
    """
    host, port = _split(text)
    if port is None:
        raise ValueError('no port; wanted is host:port, such as "127.0.0.1:11435", "[::1]:11435" or ":11435"')
    return _host(host) if host else "", _port(port, least=0)


def admin_address(text: str) -> tuple[str, int] | str:
    """As `listen_address`, or the path of a Unix socket from "unix:/path"; "" is no address. Raises ValueError: what is wanted."""
    if not text:
        return ""
    if not text.startswith(_UNIX):
        return listen_address(text)
    path = text.removeprefix(_UNIX)
    if not path.startswith("/") or path.endswith("/") or not path.isprintable() or len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(f'wanted after "{_UNIX}" is the whole path of a socket, at most {_LONGEST_PATH} bytes, such as "{_UNIX}/run/hermes/admin.sock"')
    return path


def host_name(text: str) -> str:
    """The host of a Host header, without a port: lower case, an IPv6 address without brackets. Raises ValueError: what is wanted."""
    host, port = _split(text)
    if port is not None or not host:
        raise ValueError("wanted is a name or an address, without a port")
    return _host(host)


def base_url(text: str) -> str:
    """The root of Ollama's API as "scheme://host:port/prefix", from anything OLLAMA_HOST may hold.

    Read as Ollama's own client reads it: quotes and spaces around it go, the scheme may be missing, the port follows
    the scheme, an address to listen on becomes the one to connect to. Raises ValueError: what is wanted.
    """
    text = text.strip().strip("\"'").strip()
    if not text:
        raise ValueError('empty; wanted is an address such as "http://127.0.0.1:11434"')
    scheme, separator, rest = text.partition("://")
    scheme, rest = (scheme.lower(), rest) if separator else ("http", text)
    default_port = _PORTS.get(scheme, 0) if separator else _OLLAMA_PORT
    if text == "ollama.com":
        scheme, default_port = "https", 443  # Ollama's one special case
    if not default_port:
        raise ValueError("wanted is http:// or https://")
    rest = rest.rstrip("/")
    authority, _, path = rest.partition("/")
    _refuse_extras(authority, rest)
    host, port = _split(authority)
    number = _port(port, least=1) if port else default_port
    return f"{scheme}://{join(_connectable(host), number)}{'/' + path if path else ''}"


def join(host: str, port: int) -> str:
    """ "host:port", with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_own(url: str, host: str, port: int) -> bool:
    """Whether a base url leads back to a server that listens on (host, port)."""
    target = urlsplit(url)
    there = target.hostname or ""
    if port == 0 or target.port != port:
        return False
    if host.lower() == there:
        return True
    return is_loopback(there) and (is_loopback(host) or host in _EVERY_ADDRESS)


def _refuse_extras(authority: str, rest: str) -> None:
    if "@" in authority:
        raise ValueError("wanted is an address without user and password")
    if "?" in rest or "#" in rest:
        raise ValueError("wanted is an address without query (?) and fragment (#)")
    if "//" in rest or not re.fullmatch(r"[!-~]*", rest):
        raise ValueError('wanted is one address such as "http://127.0.0.1:11434/prefix", in ASCII, without spaces')


def _split(text: str) -> tuple[str, str | None]:
    """Host and port of host, host:port, [v6], [v6]:port or a bare v6; the port is None where none is given."""
    if match := re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", text, re.DOTALL):
        if not _ip(match[1]) or ":" not in match[1]:
            raise ValueError("wanted is an IPv6 address between the brackets")
        return match[1], match[2]
    if text.count(":") > 1:
        if not _ip(text):
            raise ValueError('wanted is one host and one port; an IPv6 address is written as "[::1]:11434"')
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _port(text: str, least: int) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not least <= int(text) <= 65535:
        raise ValueError(f"wanted is a port from {least} to 65535")
    return int(text)


def _host(text: str) -> str:
    address = _ip(text)
    if address is not None:
        return str(address)
    if not _HOST.fullmatch(text) or re.fullmatch(r"[0-9.]+", text):  # 127.0.0.256 is no host name
        raise ValueError("wanted is an IP address or a host name in ASCII")
    return text.lower()


def _connectable(host: str) -> str:
    """The address to connect to: one cannot connect to "every address", so that means this machine."""
    if host in ("", "0.0.0.0"):
        return "127.0.0.1"
    host = _host(host)
    return "::1" if host == "::" else host


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether an address, or a name that needs no DNS, is this machine alone; "" is every address, and is not."""
    address = _ip(host)
    if address is None:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
