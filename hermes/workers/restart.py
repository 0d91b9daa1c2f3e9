"""When to start a dead worker again, and when to give its pool up for a while. Pure: the clock comes in as an argument.

The numbers are OTP's own example (5 in 30 s) and supervisord's growing pause. What counts is a restart that failed: several workers
that die at once are one event, and an answered call in between shows that the pool works, however often something kills it.
"""

from collections import deque

INTENSITY = 5               # deaths …
PERIOD = 30.0               # … in this many seconds, and the pool is given up
PROBE = 30.0                # seconds until a pool that was given up is tried again
PAUSES = (0.0, 0.25, 0.5, 1.0, 2.0)     # seconds before the n-th restart in a row


class RestartPolicy:
    """The death history of one pool. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque()
        self._answered = 0

    def died(self, now: float, started: float, answered: int) -> None:
        """A worker that was started at `started` has died at `now`; its pool has answered `answered` calls so far."""
        if answered != self._answered:
            self._answered = answered
            self._deaths.clear()
        if self._deaths and started <= self._deaths[-1]:
            return                          # it lived beside the last one: the same event
        self._deaths.append(now)
        while now - self._deaths[0] > PERIOD:
            self._deaths.popleft()

    @property
    def exhausted(self) -> bool:
        return len(self._deaths) >= INTENSITY

    def pause(self) -> float:
        """Seconds to wait before the next start."""
        return PAUSES[min(max(0, len(self._deaths) - 1), len(PAUSES) - 1)]

    def forgive(self, now: float) -> None:
        """The pool is tried again after a rest: one more death closes it at once, an answered call clears the past."""
        self._deaths = deque([now] * (INTENSITY - 1))
