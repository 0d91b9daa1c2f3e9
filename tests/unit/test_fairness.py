"""What clients get out of a backlog over an hour: simulated, with a clock that only events move. And what it costs."""

import heapq
import itertools
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest

from hermes.dispatch.backlog import Backlog, Claim

HOUR = 3600.0
INTERACTIVE, NORMAL, BACKGROUND = range(3)


class Call:
    def __init__(self, claim: Claim, length: float, then: Callable[[], None]):
        self.claim, self.length, self.then = claim, length, then
        self.arrived = self.started = self.ended = -1.0

    @property
    def wait(self) -> float:
        return self.started - self.arrived


class Shop:
    """Workers, clients and a backlog. `calls` are those that have ended."""

    def __init__(self, workers: int, cap: dict[str, int] | None = None, first_come: bool = False):
        self.backlog: Backlog[Call] = Backlog(100_000)
        self.now = 0.0
        self.idle = workers
        self.cap = cap or {}
        self.first_come = first_come        # everybody is the same client
        self.running: Counter[str] = Counter()
        self.calls: list[Call] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what))

    def call(self, claim: Claim, length: float, then: Callable[[], None] = lambda: None) -> None:
        call = Call(claim, length, then)
        call.arrived = self.now
        self.backlog.push(call, self._claim(call), self.now)
        self._match()

    def loop(self, claim: Claim, length: Callable[[], float], think: Callable[[], float] = lambda: 0.0, start: float = 0.0) -> None:
        """A client that has one call open all the time, but for the time it thinks."""
        def again() -> None:
            self.at(self.now + think(), lambda: self.call(claim, length(), again))
        self.at(start, lambda: self.call(claim, length(), again))

    def poisson(self, claim: Claim, length: float, rate: float, rng: random.Random) -> None:
        def arrive() -> None:
            self.call(claim, length)
            self.at(self.now + rng.expovariate(rate), arrive)
        self.at(rng.expovariate(rate), arrive)

    def run(self, until: float) -> "Shop":
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
        return self

    def used(self, client: str) -> float:
        return sum(call.length for call in self.calls if call.claim.client == client)

    def waits(self, client: str) -> list[float]:
        return sorted(call.wait for call in self.calls if call.claim.client == client)

    def _claim(self, call: Call) -> Claim:
        return Claim() if self.first_come else call.claim

    def _may_run(self, client: str) -> bool:
        return self.running[client] < self.cap.get(client, 1000)

    def _match(self) -> None:
        while self.idle and (call := self.backlog.pop(self.now, self._may_run)):
            self.idle -= 1
            self.running[call.claim.client] += 1
            call.started = self.now
            self.at(self.now + call.length, lambda call=call: self._end(call))

    def _end(self, call: Call) -> None:
        self.idle += 1
        self.running[call.claim.client] -= 1
        call.ended = self.now
        self.backlog.ended(self._claim(call), call.length, self.now)
        self.calls.append(call)
        call.then()
        self._match()


def p99(waits: list[float]) -> float:
    return waits[len(waits) * 99 // 100]


# -- clients of one class ----------------------------------------------------------------------------------------------


def heavy_and_light(first_come: bool) -> Shop:
    shop, rng = Shop(1, first_come=first_come), random.Random(1)
    for _ in range(20):
        shop.loop(Claim("heavy"), lambda: 2.0)
    shop.loop(Claim("light"), lambda: 0.5, lambda: rng.uniform(0.1, 4.0))
    return shop.run(HOUR)


def test_a_light_client_hardly_notices_a_heavy_one() -> None:
    fair, first_come = heavy_and_light(False), heavy_and_light(True)
    latency, before = (statistics.median(call.ended - call.arrived for call in shop.calls if call.claim.client == "light")
                       for shop in (fair, first_come))
    assert latency <= 1.6 * 2.0 and before > 19 * 2.0
    assert sum(call.length for call in fair.calls) >= 0.97 * sum(call.length for call in first_come.calls) > 0.9 * HOUR


WEIGHTS = (1, 1, 1, 1, 2, 2, 4, 4)
LENGTHS = {
    "equal": lambda number, rng: 1.0,
    "the light ones are long": lambda number, rng: 0.1 * 50 ** ((7 - number) / 7),
    "the heavy ones are long": lambda number, rng: 0.1 * 50 ** (number / 7),
    "random": lambda number, rng: rng.uniform(0.1, 5.0),
    "exponential": lambda number, rng: rng.expovariate(0.5),
}


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_greedy_clients_get_their_weight_of_the_workers_time(workers: int, lengths: str) -> None:
    shop, rng = Shop(workers), random.Random(2)
    for number, weight in enumerate(WEIGHTS):
        for _ in range(8):
            shop.loop(Claim(str(number), weight), lambda number=number: LENGTHS[lengths](number, rng))
    shop.run(HOUR)
    total = sum(call.length for call in shop.calls)
    shares = [shop.used(str(number)) / total * sum(WEIGHTS) / weight for number, weight in enumerate(WEIGHTS)]
    assert total > 0.99 * HOUR * workers
    assert all(0.95 <= share <= 1.05 for share in shares), shares
    assert sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares)) >= 0.99


def test_a_client_at_his_cap_costs_the_others_nothing() -> None:
    """He runs one call at a time, and whether one or fifty wait behind it the others get and wait the same."""
    figures = []
    for flood in (2, 51):
        shop = Shop(4, cap={"capped": 1})
        for client in ("a", "b", "c"):
            for _ in range(4):
                shop.loop(Claim(client), lambda: 1.0)
        for _ in range(flood):
            shop.loop(Claim("capped"), lambda: 1.7)
        shop.run(HOUR)
        assert sum(call.length for call in shop.calls) > 0.99 * 4 * HOUR
        figures.append([figure for client in "abc" for figure in (shop.used(client), statistics.mean(shop.waits(client)))])
    assert figures[1] == pytest.approx(figures[0], rel=0.001)


# -- classes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("load", [0.1, 0.3, 0.5])
def test_a_flood_of_background_moves_interactive_by_one_call_at_most(workers: int, load: float) -> None:
    """Thousands are over age nearly all the time. Were every second call theirs, at half load the queue would have no end."""
    p99s = []
    for flood in (0, 2000):
        shop, rng = Shop(workers), random.Random(3)
        for _ in range(flood):
            shop.loop(Claim("flood", rank=BACKGROUND), lambda: 1.0)
        shop.poisson(Claim("people", rank=INTERACTIVE), 1.0, load * workers, rng)
        shop.run(4 * HOUR)
        p99s.append(p99(shop.waits("people")))
        if flood:
            assert sum(call.length for call in shop.calls) > 0.99 * 4 * HOUR * workers
            assert shop.now - shop.backlog.oldest_since() > 100.0
    assert p99s[1] - p99s[0] <= 1.0


@pytest.mark.parametrize("open_calls", [6, 50])
def test_a_flood_of_background_leaves_interactive_what_it_needs(open_calls: int) -> None:
    """Even of four fifths of the time: an eighth for those over age still fits. It is no longer one call more, but no queue without end."""
    p99s = []
    for flood in (0, open_calls):
        shop, rng = Shop(1), random.Random(3)
        for _ in range(flood):
            shop.loop(Claim("flood", rank=BACKGROUND), lambda: 1.0)
        shop.poisson(Claim("people", rank=INTERACTIVE), 1.0, 0.8, rng)
        shop.run(4 * HOUR)
        p99s.append(p99(shop.waits("people")))
    assert p99s[1] <= 4 * p99s[0]


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("length", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("others", ["", "b"])
def test_a_flood_of_interactive_starves_nobody(workers: int, length: float, others: str) -> None:
    """Not by a moment, if it is one ticket at a time; two that are over age at once may have to wait for a call more."""
    shop, rng = Shop(workers), random.Random(4)
    for number in range(60):
        shop.loop(Claim(f"flood {number % 6}", rank=INTERACTIVE), lambda: length)
    for client in "a" + others:
        shop.loop(Claim(client, rank=NORMAL if client == "b" else BACKGROUND), lambda: length, lambda: rng.uniform(20.0, 60.0))
    shop.run(2 * HOUR)
    for client in "a" + others:
        assert len(shop.waits(client)) > 80
        assert shop.waits(client)[-1] <= 30.0 + (length if others else 0.0)
    assert sum(shop.used(f"flood {number}") for number in range(6)) > 0.8 * 2 * HOUR * workers


def test_starved_at_most_by_the_call_that_runs_when_lengths_are_random() -> None:
    shop, rng = Shop(1), random.Random(5)
    for _ in range(30):
        shop.loop(Claim("flood", rank=INTERACTIVE), lambda: rng.uniform(0.1, 8.0))
    shop.loop(Claim("a", rank=BACKGROUND), lambda: 1.0, start=5.0)
    shop.run(4 * HOUR)
    assert len(shop.waits("a")) > 300 and shop.waits("a")[-1] <= 30.0 + 8.0 and statistics.mean(shop.waits("a")) < 30.0


def test_both_flood() -> None:
    """Of two floods the worse has an eighth."""
    shop = Shop(1)
    for _ in range(200):
        shop.loop(Claim("i", rank=INTERACTIVE), lambda: 1.0)
        shop.loop(Claim("b", rank=BACKGROUND), lambda: 1.0)
    shop.run(HOUR)
    assert shop.used("b") == pytest.approx(HOUR / 8, rel=0.03)


def test_a_few_at_once_wait_for_little_more_than_one_would() -> None:
    shop = Shop(1)
    for _ in range(60):
        shop.loop(Claim("flood", rank=INTERACTIVE), lambda: 1.0)
    for burst in range(6):
        shop.at(1000.0 * burst, lambda: [shop.call(Claim("few", rank=BACKGROUND), 1.0) for _ in range(6)])
    shop.run(2 * HOUR)
    assert len(shop.waits("few")) == 36 and shop.waits("few")[-1] <= 30.0 + 2 * 6


# -- cost --------------------------------------------------------------------------------------------------------------


def test_cost_at_ten_thousand(capsys) -> None:
    """A hundred clients, three classes, two thirds with a deadline; fifty clients at their caps. The bound is four times what is asked for."""
    rng, backlog, count = random.Random(6), Backlog(10_000), 10_000
    claims = [Claim(f"client {rng.randrange(100)}", rng.choice((1.0, 2.0)), rng.randrange(3), rng.choice((1e6, 1e6 + rng.random(), float("inf"))))
              for _ in range(3 * count)]
    for ticket in range(count):
        backlog.push(ticket, claims[ticket], ticket * 0.001)
    capped = {f"client {number}" for number in range(0, 100, 2)}
    costs: dict[str, float] = {}

    def measure(what: str, action: Callable[[int], object], tickets: range) -> None:
        began = time.perf_counter()
        for ticket in tickets:
            action(ticket)
        costs[what] = (time.perf_counter() - began) / len(tickets) * 1e6

    served: list[int] = []
    measure("push when full", lambda ticket: backlog.push(ticket, claims[ticket], 11.0), range(count, 2 * count))
    measure("pop", lambda _: served.append(backlog.pop(12.0)), range(1000))
    measure("ended", lambda turn: backlog.ended(claims[served[turn]], 1.0, 12.0), range(1000))
    measure("pop, all over age", lambda _: served.append(backlog.pop(100.0)), range(1000))
    measure("pop, half of them capped", lambda _: served.append(backlog.pop(100.0, lambda client: client not in capped)), range(1000))
    for turn in range(1000, 3000):
        backlog.ended(claims[served[turn]], 1.0, 100.0)
    measure("push", lambda ticket: backlog.push(ticket, claims[ticket], 101.0), range(2 * count, 2 * count + 3000))
    measure("next_deadline", lambda _: backlog.next_deadline(), range(1000))
    tickets = [ticket for ticket, _, _ in backlog.waiting()]
    measure("position", lambda turn: backlog.position(tickets[turn * 9]), range(1000))
    measure("remove", lambda turn: backlog.remove(tickets[turn]), range(5000))
    with capsys.disabled():
        print("\n    microseconds: " + ", ".join(f"{what} {cost:.1f}" for what, cost in costs.items()))
    assert len(tickets) == 10_000 and None not in served
    bound = 200.0 if sys.gettrace() is None else 2000.0        # coverage makes each line dearer
    assert all(cost < bound for cost in costs.values())
