"""(method, path) → route: a table. Paths are compared raw; only a model's name in a path is decoded, after the split."""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from hermes.errors import BadRequest, MethodNotAllowed, NotFound
from hermes.frontend.exchange import Call, Dialect, Response, Streamed

MODEL = "{model}"
Endpoint = Callable[[Call], Response | Streamed]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is exact, or has one {model} that stands for one or more segments, `/` and `%2F` included."""

    method: str
    path: str
    dialect: Dialect
    endpoint: Endpoint

    def match(self, path: str) -> str | None:
        """The model's name, "" for a route without one; None = another path."""
        before, found, after = self.path.partition(MODEL)
        if not found:
            return "" if path == self.path else None
        if not path.startswith(before) or not path.endswith(after) or len(path) <= len(before) + len(after):
            return None
        return decode(path[len(before):len(path) - len(after)])


class Router:
    """Immutable. Of two routes that match, the one that stands first in the table wins."""

    def __init__(self, routes: list[Route], families: list[tuple[str, Dialect]]):
        """`families`: path prefixes and how an error looks below them; the first that fits wins."""
        self.routes = tuple(routes)
        self._families = tuple(families)
        self._exact = {(route.method, route.path): route for route in routes if MODEL not in route.path}
        self._patterns = tuple(route for route in routes if MODEL in route.path)

    def match(self, method: str, path: str) -> tuple[Route, str]:
        """The route and the model's name in the path. Raises NotFound, MethodNotAllowed."""
        if route := self._exact.get((method, path)):
            return route, ""
        allowed = [route.method for route in self._exact.values() if route.path == path]
        for route in self._patterns:
            if (name := route.match(path)) is not None:
                if route.method == method:
                    return route, name
                allowed.append(route.method)
        if allowed:
            raise MethodNotAllowed(", ".join(sorted(set(allowed))))
        raise NotFound("404 page not found")

    def dialect(self, path: str) -> Dialect:
        return next(dialect for prefix, dialect in self._families if path.startswith(prefix))


def decode(raw: str) -> str:
    """Percent-decoding of a name. Raises BadRequest on what is not UTF-8 or has control characters."""
    try:
        name = unquote(raw, errors="strict")
    except UnicodeDecodeError:
        raise BadRequest("malformed percent-encoding in the path") from None
    if not name.isprintable():
        raise BadRequest("malformed model name in the path")
    return name
