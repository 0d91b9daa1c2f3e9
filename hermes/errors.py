"""What can go wrong, by whose fault it is. Each class carries its HTTP status and a stable code.

The text of an error is written for the caller and reflects nothing that he sent except a model's name.
How it looks on the wire is the dialect's affair (hermes.frontend); nobody maps classes to statuses elsewhere.
"""

import math

__all__ = [
    "HermesError", "CallerError", "BadRequest", "Unauthorized", "Forbidden", "ClientForbidden", "CloudRefused", "NotFound", "ModelNotFound", "MethodNotAllowed",
    "RequestTimeout", "BodyTooLarge", "UriTooLong", "EncodedBody", "ExpectationFailed", "HeadTooLarge", "NotImplementedByHermes",
    "VersionNotSupported", "RateLimited", "QuotaExceeded", "LockedOut", "HermesBusy", "QueueFull", "QueueTimeout", "Cancelled", "Draining", "PoolDown", "TooManyConnections", "BodiesParked",
    "UpstreamError", "UpstreamUnreachable", "UpstreamBroken", "UpstreamTimeout", "RunTimeExceeded", "UpstreamFailed", "WorkerLost", "ClientGone",
]


class HermesError(Exception):
    """Anything Hermes says no with. `status` is the HTTP status, `code` a stable word for programs, `headers` are response fields
    that belong to the status. `futile`: the same request at once again would only do harm, so the client libraries that repeat every 408, 409,
    429 and 5xx by themselves are told not to."""

    status = 500
    code = "internal_error"
    headers: tuple[tuple[str, str], ...] = ()
    futile = False
    retry_after: int | None = None   # whole seconds, 1 to 59 (clients do not obey longer ones)
    waited = 0.0                     # seconds the call had waited for its turn
    plain = False                    # said as plain text, as Ollama's router does, and not in the shape of a family

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


class Unauthorized(CallerError):
    """No key, or none that is known: one text for every reason."""

    status, code, headers = 401, "unauthorized", (("WWW-Authenticate", "Bearer"),)

    def __init__(self):
        super().__init__("a valid key is needed")


class Forbidden(CallerError):
    status, code = 403, "forbidden"


class ClientForbidden(Forbidden):
    """The client is known, and may not do this: one text for every reason, so that it tells nothing of what there is."""

    def __init__(self):
        super().__init__("this client may not do that")


class CloudRefused(Forbidden):
    """The model runs at ollama.com, and nobody has said that requests may go there."""

    code = "cloud_refused"

    def __init__(self, name: str):
        super().__init__(f"model '{name}' runs at ollama.com; requests go there only with allow_cloud = true in [ollama]")


class NotFound(CallerError):
    status, code = 404, "not_found"

    def __init__(self, text: str, *, plain: bool = False):
        super().__init__(text)
        self.plain = plain


class ModelNotFound(NotFound):
    code = "model_not_found"


class MethodNotAllowed(CallerError):
    status, code = 405, "method_not_allowed"

    def __init__(self, allow: str, *, plain: bool = False):
        super().__init__("405 method not allowed")
        self.allow, self.plain = allow, plain


class RequestTimeout(CallerError):
    """The request did not arrive in time (RFC 9110 §15.5.9)."""

    status, code = 408, "request_timeout"


class BodyTooLarge(CallerError):
    status, code = 413, "body_too_large"


class UriTooLong(CallerError):
    status, code = 414, "uri_too_long"


class EncodedBody(CallerError):
    """A Content-Encoding that is not read here (RFC 9110 §15.5.16)."""

    status, code = 415, "encoded_body"


class ExpectationFailed(CallerError):
    status, code = 417, "expectation_failed"


class HeadTooLarge(CallerError):
    status, code = 431, "head_too_large"


class NotImplementedByHermes(CallerError):
    """A method or transfer coding that nobody here knows (RFC 9110 §15.6.2)."""

    status, code, futile = 501, "not_implemented", True


class VersionNotSupported(CallerError):
    status, code, futile = 505, "http_version_not_supported", True


# -- the caller's own limits: later it may work --------------------------------------------------------------------

class RateLimited(HermesError):
    """The client has made its requests of this minute."""

    status, code, retry_after = 429, "rate_limited", 1


class QuotaExceeded(RateLimited):
    """The client has used its tokens of this day. The text says when the next one begins, which Retry-After is too short for."""

    code, retry_after, futile = "quota_exceeded", 59, True


class LockedOut(RateLimited):
    """Too many wrong keys from this address. The same key again is one more."""

    code, futile = "locked_out", True


# -- Hermes's own limits: later it may work ------------------------------------------------------------------------

class HermesBusy(HermesError):
    status, code, retry_after = 503, "busy", 1


class QueueFull(HermesBusy):
    code = "queue_full"


class Draining(HermesBusy):
    """Hermes is stopping: by the time of a second attempt nobody listens here."""

    code, futile = "draining", True


class PoolDown(HermesBusy):
    """This model's workers died too often; it is tried again by itself."""

    code = "pool_down"


class TooManyConnections(HermesBusy):
    code = "too_many_connections"


class BodiesParked(HermesBusy):
    """The bodies of the requests that are here take all the memory that bodies may take."""

    code = "bodies_parked"


class QueueTimeout(HermesError):
    """Who comes again goes to the back of the same queue."""

    status, code, futile = 504, "queue_timeout", True


class Cancelled(HermesError):
    """Somebody who may has ended the request. nginx's number for a client that has left: no library repeats it (ollama-api.md §7.1)."""

    status, code = 499, "cancelled"


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
    """Who comes again starts the same long work anew."""

    status, code, futile = 504, "upstream_timeout", True


class RunTimeExceeded(UpstreamTimeout):
    """The call has taken all the time that its model gives to one."""

    code = "run_time_exceeded"


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
