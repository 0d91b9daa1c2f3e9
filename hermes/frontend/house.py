"""What every connection has of the server, and what one client may take."""

from collections.abc import Callable

from hermes.frontend.crowd import Parking, Waiting
from hermes.frontend.exchange import Call
from hermes.frontend.live import Live
from hermes.frontend.router import Router


class Limits:
    """What one client may take: seconds and bytes. Immutable after construction."""

    def __init__(self, settings):
        self.head = settings.head_timeout
        self.body = settings.body_timeout
        self.idle = settings.keepalive_timeout
        self.send = settings.send_timeout
        self.max_body = settings.max_body
        self.max_parked = max(settings.max_parked, settings.max_body)
        self.heartbeat = settings.heartbeat
        self.heartbeat_plain = settings.heartbeat_plain


class House:
    """What every connection of a listener needs of the server. `admit(call)` finds out who asks, or raises a HermesError; `note(call, status, outcome)`
    is told of each request once, at its end; `closing()`: take no further request on this connection. `charge(call)` is asked before a model is
    made to work, and may raise QuotaExceeded. `live` has the calls that are being served, `parking` the room for bodies: listeners share them."""

    def __init__(self, router: Router, limits: Limits, admit: Callable, note: Callable, closing: Callable[[], bool], *,
                 charge: Callable[[Call], None] = lambda call: None, live: Live | None = None, parking: Parking | None = None):
        self.router, self.limits, self.admit, self.note, self.closing, self.charge = router, limits, admit, note, closing, charge
        self.waiting, self.parking, self.live = Waiting(), parking or Parking(), live or Live()
