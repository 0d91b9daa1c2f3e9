"""(method, path) → route: a table. Paths are compared raw; only a name in a path is decoded, after the split.

What has no route is answered as Ollama's routers do (ollama-api.md §1.1): 404 and 405 in plain text, a slash too many by a redirect.
"""

import html
import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Literal
from urllib.parse import unquote

from hermes.errors import BadRequest, MethodNotAllowed, NotFound
from hermes.frontend.exchange import Call, Dialect, Response, Streamed
from hermes.frontend.sites import ALLOW_ORIGIN, is_address

_PLACE = re.compile(r"\{[a-z]+\}")
_DOTS = frozenset({".", ".."})
_UNTIDY = _DOTS | {""}                          # no segment of a name: a slash too many, or dots, which only a redirect resolves
ORDER = ("HEAD", "GET", "POST", "DELETE")       # in which Ollama names the methods of a path
Endpoint = Callable[[Call], Response | Streamed]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is exact, or has one {name} that stands for one or more segments, `/` and `%2F` included, none of them
    empty or a dot or two. `streams_body`: the endpoint reads the body itself, with `Call.upload`. `infers`: it makes a model work, which
    counts against its client's tokens. `admin`: where there is a listener for managing, is it served there: not, there too, or only there?"""

    method: str
    path: str
    dialect: Dialect
    endpoint: Endpoint
    streams_body: bool = False
    infers: bool = False
    admin: Literal["not", "too", "only"] = "not"

    def match(self, path: str) -> str | None:
        """The name in the path, "" for a route without one; None = another path."""
        place = _PLACE.search(self.path)
        if not place:
            return "" if path == self.path else None
        before, after = self.path[:place.start()], self.path[place.end():]
        if not path.startswith(before) or not path.endswith(after) or len(path) <= len(before) + len(after):
            return None
        raw = path[len(before):len(path) - len(after)]
        return decode(raw) if _UNTIDY.isdisjoint(raw.split("/")) else None


class Router:
    """Immutable. Of two routes that match, the one that stands first in the table wins."""

    def __init__(self, routes: Sequence[Route], families: Sequence[tuple[str, Dialect]], hidden: frozenset[Route] = frozenset()):
        """`families`: path prefixes and how an error looks below them; the first that fits wins. The last, "", is for paths of no family.
        `hidden`: those of the routes that are not here. What would go to one of them goes nowhere else either."""
        self._table = tuple(routes)
        self._hidden = hidden
        self.routes = tuple(route for route in routes if route not in hidden)
        self._families = tuple(families)
        self._exact = {(route.method, route.path): route for route in self.routes if "{" not in route.path}
        self._patterns = tuple(route for route in self.routes if "{" in route.path)

    def without(self, admin: str) -> "Router":
        """What a listener serves where another has the rest: all but those routes whose column says `admin`."""
        return Router(self._table, self._families, frozenset(route for route in self._table if route.admin == admin))

    def match(self, method: str, path: str) -> tuple[Route, str]:
        """The route and the name in the path; for OPTIONS, and for a path that is a route but for its slashes, one made for the occasion.
        Raises NotFound, MethodNotAllowed."""
        if route := self._exact.get((method, path)):
            return route, ""
        for route in () if self._hides(path) else self._patterns:
            if route.method == method and (name := route.match(path)) is not None:
                return route, name
        if there := self._all_at(path):
            refusal = MethodNotAllowed(", ".join(sorted({route.method for route in there}, key=ORDER.index)), plain=there[0].dialect.ollamas)
            if method == "OPTIONS":
                return Route(method, path, there[0].dialect, partial(answer_options, refusal)), ""
            raise refusal
        if moved := self._moved(method, path):
            return Route(method, path, self.dialect(path), partial(redirect, *moved)), ""
        raise NotFound("404 page not found", plain=not self._family(path)[0])

    def dialect(self, path: str) -> Dialect:
        return self._family(path)[1]

    def _family(self, path: str) -> tuple[str, Dialect]:
        return next(family for family in self._families if path.startswith(family[0]))

    def _all_at(self, path: str) -> list[Route]:
        return [] if self._hides(path) else [route for route in (*self._exact.values(), *self._patterns) if route.match(path) is not None]

    def _hides(self, path: str) -> bool:
        """Does a path lead to a route that is not here? Else a model's name could be made of one: /v1/llm/{model}/pull fits /v1/llm/{model}."""
        return bool(self._hidden) and next((route for route in self._table if route.match(path) is not None), None) in self._hidden

    def _moved(self, method: str, path: str) -> tuple[int, str] | None:
        """Status and path of a redirect. Ollama cleans doubled slashes and dots out of every path; here only to where there is a route, which a
        trailing slash may still hide; that one goes with a second redirect, and only from where the method is the right one."""
        if not path.startswith("/"):
            return None
        clean = posixpath.normpath("/" + path.lstrip("/"))
        tidy = clean + "/" if path.endswith("/") and clean != "/" else clean
        if tidy != path:
            return (307, tidy) if self._all_at(clean) else None
        if method not in {route.method for route in self._all_at(clean)}:
            return None
        return 301 if method == "GET" else 307, clean


def redirect(status: int, path: str, call: Call) -> Response:
    """As Go's net/http says it: with a link for those who asked by GET or HEAD, else without a body."""
    location = path + ("?" + call.request.query if call.request.query else "")
    headers = (("Location", location),)
    if call.request.method not in ("GET", "HEAD"):
        return Response(status, content_type="", headers=headers)
    link = f'<a href="{html.escape(location)}">{HTTPStatus(status).phrase}</a>.\n\n'
    return Response(status, link.encode("ascii"), "text/html; charset=utf-8", headers)


def answer_options(refusal: MethodNotAllowed, call: Call) -> Response:
    """The answer to a preflight is in the headers that the gate has noted. What is none is answered by Ollama where it is called by a name, and
    refused where it is called by an address."""
    if ALLOW_ORIGIN in dict(call.headers) or not is_address(call.request.headers.get("host", "")):
        return Response(204, content_type="")
    raise refusal


def decode(raw: str) -> str:
    """Percent-decoding of a name. Raises BadRequest on what is not UTF-8, has control characters, or would lead to another path at whoever decodes
    before he routes: dots that were encoded are nobody's name."""
    try:
        name = unquote(raw, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("malformed percent-encoding in the path") from None
    if not name.isprintable() or not _DOTS.isdisjoint(name.split("/")):
        raise BadRequest("malformed name in the path")
    return name
