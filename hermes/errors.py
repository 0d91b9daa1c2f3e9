"""What can go wrong, by whose fault it is. Each class carries its HTTP status and a stable code.

The text of an error is written for the caller and reflects nothing that he sent except a model's name.
How it looks on the wire is the dialect's affair (hermes.frontend); nobody maps classes to statuses elsewhere.
"""

import math

__all__ = [
    "HermesError", "CallerError", "BadRequest", "Forbidden", "NotFound", "ModelNotFound", "MethodNotAllowed",
    "RequestTimeout", "BodyTooLarge", "UriTooLong", "ExpectationFailed", "HeadTooLarge", "NotImplementedByHermes",
    "VersionNotSupported", "HermesBusy", "QueueFull", "QueueTimeout", "Draining", "PoolDown", "TooManyConnections", "QuotaExceeded",
    "UpstreamError", "UpstreamUnreachable", "UpstreamBroken", "UpstreamTimeout", "UpstreamFailed", "WorkerLost", "ClientGone",
]


class HermesError(Exception):
    """Anything Hermes says no with. `status` is the HTTP status, `code` a stable word for programs."""

    status = 500
    code = "internal_error"
    retry_after: int | None = None   # whole seconds, 1 to 59 (clients do not obey longer ones)
    waited = 0.0                     # seconds the call had waited for its turn

    def __init__(self, text: str, *, retry_after: float | None = None):
        super().__init__(text)
        self.text = text
        if retry_after is not None:
            self.retry_after = max(1, min(59, math.ceil(retry_after)))


# -- the caller's fault: the same request would fail again ---------------------------------------------------------

class CallerError(HermesError):
    status, code = 400, "invalid_request"


class BadRequest(CallerError):
    """Malformed HTTP or JSON, a missing or wrong field."""


class Forbidden(CallerError):
    status, code = 403, "forbidden"


class NotFound(CallerError):
    status, code = 404, "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(CallerError):
    status, code = 405, "method_not_allowed"

    def __init__(self, allow: str):
        super().__init__("method not allowed")
        self.allow = allow


class RequestTimeout(CallerError):
    """The request did not arrive in time (RFC 9110 §15.5.9)."""

    status, code = 408, "request_timeout"


class BodyTooLarge(CallerError):
    status, code = 413, "body_too_large"


class UriTooLong(CallerError):
    status, code = 414, "uri_too_long"


class ExpectationFailed(CallerError):
    status, code = 417, "expectation_failed"


class HeadTooLarge(CallerError):
    status, code = 431, "head_too_large"


class NotImplementedByHermes(CallerError):
    """A method or transfer coding that nobody here knows (RFC 9110 §15.6.2)."""

    status, code = 501, "not_implemented"


class VersionNotSupported(CallerError):
    status, code = 505, "http_version_not_supported"


# -- Hermes's own limits: later it may work ------------------------------------------------------------------------

class HermesBusy(HermesError):
    status, code, retry_after = 503, "busy", 1


class QueueFull(HermesBusy):
    code = "queue_full"


class Draining(HermesBusy):
    code = "draining"


class PoolDown(HermesBusy):
    """This model's workers died too often; it is tried again by itself."""

    code = "pool_down"


class TooManyConnections(HermesBusy):
    code = "too_many_connections"


class QueueTimeout(HermesError):
    status, code = 504, "queue_timeout"


class QuotaExceeded(HermesError):
    """This client's own limit, not Hermes's: 429. Its text says when the next day begins, which Retry-After is too short for."""

    status, code, retry_after = 429, "quota_exceeded", 59


# -- Ollama's side, or the worker's --------------------------------------------------------------------------------

class UpstreamError(HermesError):
    """`told`: Ollama's own error record has already been sent to the client."""

    status, code = 502, "upstream_error"
    told = False


class UpstreamUnreachable(UpstreamError):
    code = "upstream_unreachable"


class UpstreamBroken(UpstreamError):
    """Ollama's answer was cut off, broke HTTP's rules, or ended without its final record."""

    code = "upstream_broken"


class UpstreamTimeout(UpstreamError):
    status, code = 504, "upstream_timeout"


class UpstreamFailed(UpstreamError):
    """Ollama said inside a 200 that it failed."""

    code = "upstream_failed"


class WorkerLost(UpstreamError):
    """The worker process died or hung. `started`: it had the whole job, so Ollama may have seen the request."""

    code = "worker_lost"

    def __init__(self, text: str, *, started: bool):
        super().__init__(text)
        self.started = started


class ClientGone(Exception):
    """The client has left: there is nobody to tell. Not a HermesError, so that no answer is built for it."""
