"""Who asks: keys and the identities behind them. Immutable; a reload replaces the whole.

A key comes as `Authorization: Bearer`, as `x-api-key`, or in `Authorization: Basic`, because each is the only way that some client knows
(conventions.md §1.3). Only its SHA-256 is known here. Whatever is wrong with a key, the answer is the same and so is the work, so that
neither says how near a guess was (reliability.md §2.4).
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hermes.config import CLASSES, ClientSettings
from hermes.errors import Unauthorized
from hermes.names import matches

HEADERS = ("authorization", "x-api-key")
# Visible ASCII. No comma: http1 joins fields that come twice with one, and two keys are none.
_KEY = re.compile(rb"[\x21-\x2b\x2d-\x7e]{1,512}\Z")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and what he may. Ranks are places in config.CLASSES: 0 is the best. None where nothing limits."""

    name: str
    weight: float = 1.0
    best_rank: int = 0
    default_rank: int = CLASSES.index("normal")
    max_concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    models: tuple[str, ...] = ("*",)        # canonical patterns
    manage: bool = False                    # may he change what models there are?
    pull: bool = False                      # may he at least fetch one?

    def may_use(self, canonical_names: Iterable[str]) -> bool:
        """Whether any of a model's names is among those he may use. A model without a name is for those who may use all."""
        return "*" in self.models or any(matches(name, pattern) for name in canonical_names for pattern in self.models)


NOBODY = Principal("-", models=())          # who has not been asked yet: may nothing


class Keys:
    """`identify` from any thread."""

    def __init__(self, clients: tuple[ClientSettings, ...], manage: bool, pull: bool):
        """`manage`, `pull`: what everybody may, where there are no clients."""
        self._manage, self._pull = manage, manage or pull
        self._known = tuple((bytes.fromhex(client.key_sha256), _principal(client)) for client in clients)
        self.names = frozenset(client.name for client in clients)

    def identify(self, headers: Mapping[str, str], address: str) -> Principal:
        """The client whose key this is; without clients, whoever has the address, whatever he sends. Raises Unauthorized."""
        if not self._known:
            return Principal(address, manage=self._manage, pull=self._pull)
        key = presented(headers)
        digest, found = hashlib.sha256(key).digest(), None
        for known, principal in self._known:
            if hmac.compare_digest(known, digest):
                found = principal           # and on: where it stands in the table is nobody's business either
        if found is None or not key:
            raise Unauthorized
        return found


def _principal(client: ClientSettings) -> Principal:
    return Principal(client.name, client.weight, CLASSES.index(client.max_class), CLASSES.index(client.default_class), client.max_concurrency,
                     client.requests_per_minute, client.tokens_per_day, client.models, client.manage, client.manage)


def presented(headers: Mapping[str, str]) -> bytes:
    """The one key that a request brings; b"" if there is none, or it is malformed, or there are two that differ."""
    keys = {read(headers[name].encode("latin-1")) for name, read in zip(HEADERS, (_authorization, bytes)) if name in headers}
    key = keys.pop() if len(keys) == 1 else b""
    return key if _KEY.match(key) else b""


def _authorization(value: bytes) -> bytes:
    scheme, _, rest = value.partition(b" ")
    match scheme.lower():
        case b"bearer":
            return rest.strip(b" ")
        case b"basic":
            return _basic(rest.strip(b" "))
    return b""


def _basic(value: bytes) -> bytes:
    """The password; the user if the password is empty: clients make Basic of a user and password in their URL (RFC 7617)."""
    try:
        user, colon, password = base64.b64decode(value, validate=True).partition(b":")
    except binascii.Error:
        return b""
    return (password or user) if colon else b""
