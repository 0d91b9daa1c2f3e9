"""What a request says about its place in the queue, X-Hermes-Class and X-Hermes-Deadline, and what it is told about it. Pure."""

import math
import re

from hermes.config import CLASSES
from hermes.dispatch.pending import Asker, Pending
from hermes.dispatch.shares import Claim
from hermes.errors import BadRequest
from hermes.frontend.exchange import Call

_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")
_DEADLINE = re.compile(rf"(?:{_PART.pattern})+|[0-9]{{1,9}}(?:\.[0-9]{{1,9}})?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def rank_of(call: Call, usual: int) -> int:
    """The class to wait in, as a place in CLASSES: what the request asks for, else `usual`, which is what its client or its route
    has; never better than its client may. Raises BadRequest."""
    asked = call.request.headers.get("x-hermes-class")
    if asked is not None and asked not in CLASSES:
        raise BadRequest(f"X-Hermes-Class must be one of {', '.join(CLASSES)}")
    return max(call.principal.best_rank, usual if asked is None else CLASSES.index(asked))


def patience_of(call: Call) -> float:
    """Seconds from now within which the request has to get its turn; inf if it does not say. Raises BadRequest."""
    asked = call.request.headers.get("x-hermes-deadline")
    if asked is None:
        return math.inf
    if not _DEADLINE.fullmatch(asked):
        raise BadRequest('X-Hermes-Deadline must be a time such as "500ms", "30s" or "1m30s", or a number of seconds')
    parts = _PART.findall(asked)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else float(asked)


def asker_of(call: Call, usual: int = 0) -> Asker:
    """On whose behalf the call is. `usual`: the class its route has, if that is worse than its client's. Raises BadRequest."""
    principal = call.principal
    call.rank = rank_of(call, max(usual, principal.default_rank))
    return Asker(call.client, Claim(principal.name, principal.weight, call.rank), patience_of(call), call.leases, call.upload)


def told(pending: Pending, queued: float) -> tuple[tuple[str, str], ...]:
    """The fields of an answer that say how it waited: the place in the queue when it came, 0 if it had its turn at once, and the seconds."""
    return ("X-Hermes-Queue-Position", str(pending.first_position)), ("X-Hermes-Queue-Wait", f"{queued:.3f}")
