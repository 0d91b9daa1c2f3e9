"""One request being answered: what an endpoint gets, and how errors look in each dialect (ollama-api.md §2.1)."""

from dataclasses import dataclass
from typing import Any
from zlib import crc32

from hermes.simulator.client import Client
from hermes.simulator.faults import Pace
from hermes.simulator.ledger import Ledger, SimRequest
from hermes.simulator.models import Library, Name, SimModel, parse_name
from hermes.simulator.reading import DecodeError, EmptyBody, Request, to_struct
from hermes.simulator.scheduler import Scheduler
from hermes.simulator.text import encode
from hermes.simulator.wire import EVENTS, Wire

JSON = "application/json"
JSON_UTF8 = "application/json; charset=utf-8"


class ApiError(Exception):
    """An answer that is no success.

    direct: written where a request is decoded, before any translation. native: in the native shape even under /v1, as
    is all that concerns models at ollama.com. late: found by a streaming handler before its first chunk.
    """

    def __init__(
        self, status: int, text: str, *, direct: bool = False, native: bool = False, late: bool = False
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.direct = direct
        self.native = native
        self.late = late


@dataclass(frozen=True)
class House:
    """What every exchange shares."""

    ledger: Ledger
    shelf: Library
    scheduler: Scheduler
    tokens: int
    load_time: float
    pull_steps: int
    pull_interval: float


@dataclass(frozen=True)
class Exchange:
    """One request, its record and the wire for its answer. Belongs to one handler thread."""

    house: House
    client: Client
    request: Request
    record: SimRequest
    parsed: object
    pace: Pace
    wire: Wire

    @property
    def openai(self) -> bool:
        """Whether the request speaks OpenAI's dialect."""
        return self.request.path.startswith("/v1/")

    @property
    def anthropic(self) -> bool:
        """Whether it speaks Anthropic's."""
        return self.request.path.startswith("/v1/messages")

    def fields(self, struct: str, types: dict[str, str]) -> dict[str, Any]:
        """The request's body as Go would decode it into that struct."""
        try:
            if isinstance(self.parsed, DecodeError):
                raise self.parsed
            return to_struct(self.parsed, struct, types)
        except EmptyBody:
            raise ApiError(400, "EOF" if self.openai else "missing request body", direct=True) from None
        except DecodeError as error:
            raise ApiError(400, str(error), direct=True) from None

    def installed(self, sent: str, unknown: str) -> tuple[Name, SimModel]:
        """The model a request names; `unknown` is the error's text, with %s for the name as it was sent."""
        name = parse_name(sent)
        if name is None:
            raise ApiError(400, "invalid model name")
        if name.cloud:
            raise ApiError(403, "ollama cloud is disabled: remote model is unavailable", native=True)
        model = self.house.shelf.find(name.short)
        if model is None:
            raise ApiError(404, unknown.replace("%s", sent))
        return name, model

    def entered(self, phase: str) -> None:
        """The scheduler's news."""
        self.house.ledger.enter(self.record, phase)

    def json(self, value: object) -> None:
        """A whole answer, as each dialect writes it."""
        if self.openai:
            self.wire.answer(200, JSON, encode(value) + b"\n")
        else:
            self.wire.answer(200, JSON_UTF8, encode(value))

    def fail(self, error: ApiError) -> None:
        """An error in the request's dialect."""
        if not self.openai or error.native:
            kind = JSON if error.late else JSON_UTF8
            return self.wire.answer(error.status, kind, encode({"error": error.text}), chunked=error.late)
        if self.anthropic:
            return self._translated(error, _anthropic(error))
        kinds = {400: "invalid_request_error", 404: "not_found_error"}
        inner = {"message": error.text, "type": kinds.get(error.status, "api_error"), "param": None, "code": None}
        self._translated(error, encode({"error": inner}))

    def _translated(self, error: ApiError, body: bytes) -> None:
        """As the translation of the dialect writes it: on the newer paths a stream's headers were set before it failed."""
        if error.direct:
            return self.wire.answer(error.status, JSON_UTF8, body)
        streams = isinstance(self.parsed, dict) and self.parsed.get("stream") is True
        headers = EVENTS if streams and self.request.path in ("/v1/messages", "/v1/responses") else b""
        self.wire.answer(error.status, JSON, body + b"\n", headers)


def _anthropic(error: ApiError) -> bytes:
    kinds = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
             429: "rate_limit_error", 503: "overloaded_error", 529: "overloaded_error"}
    number = crc32(error.text.encode("utf-8", "replace"))
    return encode({
        "type": "error", "error": {"type": kinds.get(error.status, "api_error"), "message": error.text},
        "request_id": f"req_{number:024x}",
    })
