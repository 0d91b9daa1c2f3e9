"""Fair shares of worker time among the clients of one class. Pure; the backlog has one for each class.

Start-time fair queueing (Goyal, Vin and Cheng, 1996): an account says how many seconds of worker time a client has had for each unit of
his weight, and the lowest goes first. How long a call will take is not known when it starts, so an estimate is charged and put right when
it ends. Nobody saves up: who begins to wait begins at the present, which is where those who are being served are; and who could not
take his turn, because he runs as much as he may, is next as soon as he can, but is not paid for the turns he missed.

The present is where the account of whoever was served last stood. A client who has gone is remembered as long as he is ahead of it, else
leaving and coming back would pay; of too many such the nearest are forgotten, and the present moves on past them, so that it does not
pay to come with a new name each time either.

The order is kept in sorted lists. To insert or delete moves the memory behind it, a microsecond for ten thousand, and no dead entry
has to be cleared up as in a heap; a client whose account changes moves, not each of his tickets.
"""

import heapq
import itertools
import math
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

RECENT = 0.2                # how much the latest call counts in a mean
DEBTORS = 1000              # clients remembered who neither wait nor run


class Claim(NamedTuple):
    """What a ticket asks for."""

    client: str = ""
    weight: float = 1.0             # > 0; the client's share beside the others' in his class
    rank: int = 1                   # index into RANKS
    deadline: float = math.inf      # monotonic seconds; not served at or after it


class Entry(NamedTuple):
    """A ticket that waits."""

    ticket: Any
    claim: Claim
    since: float                    # monotonic seconds
    number: int                     # in order of arrival


class Account:
    """One client in one class; times are virtual, seconds over weight."""

    __slots__ = ("client", "weight", "time", "charged", "running", "mean", "waiting", "passed_over", "serial", "active", "shelf", "place")

    def __init__(self, client: str):
        self.client = client
        self.weight = 1.0
        self.time = 0.0                     # what he has been charged
        self.charged = 0.0                  # of it, estimates for the calls that run
        self.running = 0                    # calls
        self.mean: float | None = None      # seconds his calls have taken of late
        self.waiting: OrderedDict[int, Entry] = OrderedDict()
        self.passed_over = False
        self.serial = 0                     # settles who is first of two with the same time
        self.active = False                 # he waits or runs, and has been counted
        self.shelf: list | None = None
        self.place: tuple[float, int, "Account"] | None = None

    @property
    def first(self) -> Entry:
        return next(iter(self.waiting.values()))

    def step(self, guess: float) -> float:
        """What his next call is charged. `guess` seconds if it is not known how long his calls take."""
        return (guess if self.mean is None else self.mean) / self.weight


class Shares:
    """The clients of one class and what of theirs waits: first come, first served for one client, fair between them."""

    def __init__(self):
        self._accounts: dict[str, Account] = {}
        self._order: list[tuple[float, int, Account]] = []      # those who wait, the next first
        self._debtors: list[tuple[float, int, Account]] = []    # those who do nothing and are ahead of the present
        self._arrivals: OrderedDict[int, Entry] = OrderedDict()
        self._present = 0.0
        self._active = 0                # accounts that wait or run
        self._serials = itertools.count()

    def __len__(self) -> int:
        """Tickets."""
        return len(self._arrivals)

    @property
    def accounts(self) -> int:
        """How many clients are remembered."""
        return len(self._accounts)

    def tickets(self, may_run: Callable[[str], bool]) -> int:
        """Of clients who may run."""
        return sum(len(account.waiting) for _, _, account in self._order if may_run(account.client))

    def oldest(self) -> float:
        """When the longest-waiting came; inf if nobody waits."""
        return next(iter(self._arrivals.values())).since if self._arrivals else math.inf

    def newest_of(self, client: str) -> Entry | None:
        account = self._accounts.get(client)
        return next(reversed(account.waiting.values())) if account and account.waiting else None

    def next(self, may_run: Callable[[str], bool], since: float = math.inf) -> Entry | None:
        """The next one of those who came by `since` and whose client may run. Takes longer the more clients have to be skipped."""
        if self.oldest() <= since:
            for _, _, account in self._order:
                if not may_run(account.client):
                    account.passed_over = True
                elif (entry := account.first).since <= since:
                    return entry
        return None

    def add(self, entry: Entry) -> None:
        account = self._open(entry.claim)
        if not account.waiting:
            account.serial = next(self._serials)
        account.waiting[entry.number] = self._arrivals[entry.number] = entry
        self._file(account)

    def take(self, entry: Entry) -> None:
        account = self._accounts[entry.claim.client]
        del account.waiting[entry.number], self._arrivals[entry.number]
        self._file(account)

    def begin(self, claim: Claim, guess: float) -> float:
        """A call starts; call it before `take` if it has waited. How many seconds it is expected to take."""
        account = self._open(claim)
        self._move(account.time)
        step = account.step(guess)
        account.time += step
        account.charged += step
        account.running += 1
        self._file(account)
        return step * account.weight

    def end(self, claim: Claim, seconds: float) -> None:
        """A call that began has used `seconds`; 0 says nothing about the next one. Raises KeyError for one that did not begin."""
        account = self._accounts[claim.client]
        if not account.running:
            raise KeyError(claim.client)
        estimate = account.charged / account.running        # which of his calls it was makes no difference once all have ended
        account.charged -= estimate
        account.running -= 1
        account.time += seconds / claim.weight - estimate
        if seconds > 0.0:
            account.mean = seconds if account.mean is None else account.mean + (seconds - account.mean) * RECENT
        self._file(account)

    def waiting(self, guess: float) -> Iterator[Entry]:
        """In the order of service, if every call takes as long as its client's of late and everybody may run."""
        lines = [self._line(account, account.step(guess)) for _, _, account in self._order]
        return (entry for _, _, entry in heapq.merge(*lines, key=lambda turn: turn[:2]))

    @staticmethod
    def _line(account: Account, step: float) -> Iterator[tuple[float, int, Entry]]:
        for turn, entry in enumerate(account.waiting.values()):
            yield account.time + turn * step, account.serial, entry

    def before(self, entry: Entry, guess: float) -> int:
        """How many are before it in `waiting`, without going through them: it takes longer the more clients wait, and the client's own."""
        own = self._accounts[entry.claim.client]
        ahead = next(turn for turn, number in enumerate(own.waiting) if number == entry.number)
        mine = own.time + ahead * own.step(guess), own.serial
        for _, _, account in self._order:
            if account is not own:
                step = account.step(guess)
                turns = max(0, int((mine[0] - account.time) / step) - 1)        # rounding: at least one too few, then counted up
                while turns < len(account.waiting) and (account.time + turns * step, account.serial) < mine:
                    turns += 1
                ahead += min(turns, len(account.waiting))
        return ahead

    def _open(self, claim: Claim) -> Account:
        """The client's account, lifted to the present if he has been away or could not take his turn."""
        account = self._accounts.get(claim.client)
        if account is None:
            account = self._accounts[claim.client] = Account(claim.client)
            account.serial = next(self._serials)
        self._unfile(account)
        account.weight = claim.weight
        if account.passed_over or not account.waiting:
            account.time = max(account.time, self._present)
            account.passed_over = False
        return account

    @staticmethod
    def _unfile(account: Account) -> None:
        if account.shelf is not None:
            del account.shelf[bisect_left(account.shelf, account.place)]
            account.shelf = None

    def _file(self, account: Account) -> None:
        """Put it where it belongs now: among those who wait, among the debtors, with those who only run, or nowhere."""
        self._unfile(account)
        active = bool(account.waiting or account.running)
        self._active += active - account.active
        account.active = active
        if not self._active:            # nobody to be fair to
            self._accounts.clear()
            self._debtors.clear()
            self._present = 0.0
        elif account.waiting or not active and account.time > self._present:
            account.shelf = self._order if account.waiting else self._debtors
            account.place = account.time, account.serial, account
            insort(account.shelf, account.place)
            if len(self._debtors) > DEBTORS:
                self._move(self._debtors[0][0])
        elif not active:
            del self._accounts[account.client]

    def _move(self, present: float) -> None:
        """The present goes forward only, and forgets the debtors it has reached."""
        self._present = max(self._present, present)
        reached = bisect_left(self._debtors, (self._present, math.inf))
        for _, _, account in self._debtors[:reached]:
            del self._accounts[account.client]
        del self._debtors[:reached]
