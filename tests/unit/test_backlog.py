"""Who is next, rule by rule; and everything at once against a plain list. How it feels over an hour is in test_fairness.py."""

import math
import random
from collections import Counter
from itertools import groupby

import pytest

from hermes.config.settings import CLASSES
from hermes.dispatch.backlog import RANKS, Backlog, Claim, retry_after

INTERACTIVE, NORMAL, BACKGROUND = range(3)


def filled(*claims: Claim, limit: int = 100, at: float = 0.0) -> Backlog[int]:
    """Tickets 0, 1, 2, …"""
    backlog: Backlog[int] = Backlog(limit)
    for ticket, claim in enumerate(claims):
        assert backlog.push(ticket, claim, at) is None
    return backlog


def drain(backlog: Backlog, now: float = 0.0, may_run=lambda client: True) -> list:
    """Everybody who can be popped, one call at a time, each of a second."""
    order, claims = [], {ticket: claim for ticket, claim, _ in backlog.waiting()}
    while (ticket := backlog.pop(now, may_run)) is not None:
        order.append(ticket)
        backlog.ended(claims[ticket], 1.0, now)
    return order


def test_one_client_is_served_in_order() -> None:
    backlog: Backlog[str] = Backlog(3)
    assert [backlog.push(name, Claim(), 5.0) for name in "abcd"] == [None, None, None, "d"]
    assert (len(backlog), backlog.oldest_since()) == (3, 5.0)
    assert backlog.remove("b") and not backlog.remove("b") and not backlog.remove("d")
    assert backlog.push("e", Claim(), 6.0) is None
    assert [backlog.pop(7.0) for _ in range(4)] == ["a", "c", "e", None]
    assert backlog.oldest_since() is None and len(backlog) == 0


def test_clear_and_a_limit_that_shrinks() -> None:
    backlog = filled(Claim(rank=BACKGROUND), Claim(deadline=9.0), Claim(deadline=3.0))
    backlog.limit = 1
    assert backlog.push(9, Claim(rank=BACKGROUND), 1.0) == 9 and len(backlog) == 3
    backlog.pop(4.0)
    assert backlog.clear() == [0, 2] and len(backlog) == 0 and backlog.clear() == [] and backlog.next_deadline() == math.inf
    assert backlog.position(0) == 0 and list(backlog.waiting()) == [] and backlog.pop(4.0) is None


def test_the_classes_are_those_of_the_configuration() -> None:
    assert RANKS == CLASSES == ("interactive", "normal", "background")


def test_a_better_class_goes_first() -> None:
    assert drain(filled(*(Claim(rank=rank) for rank in (2, 1, 0, 2, 1, 0)))) == [2, 5, 1, 4, 0, 3]


# -- over age ----------------------------------------------------------------------------------------------------------


def test_over_age_goes_first_but_not_twice_in_a_row() -> None:
    backlog = filled(*[Claim("b", rank=BACKGROUND)] * 3)
    for ticket in range(10, 14):
        backlog.push(ticket, Claim("i", rank=INTERACTIVE), 27.9)
    assert backlog.pop(27.9) == 10          # 30, less two calls of a second each
    assert [backlog.pop(28.0) for _ in range(6)] == [0, 11, 1, 12, 2, 13]


def test_after_a_worse_call_of_its_own_right_nobody_goes_ahead() -> None:
    """The interactive one has waited for that call already."""
    backlog = filled(*[Claim("b", rank=BACKGROUND)] * 2)
    assert backlog.pop(29.0) == 0
    backlog.push(10, Claim("i", rank=INTERACTIVE), 29.5)
    assert backlog.pop(30.0) == 10


def test_a_call_that_never_waited_counts_as_well() -> None:
    backlog = filled(Claim("b", rank=BACKGROUND), Claim("i", rank=INTERACTIVE))
    backlog.started(Claim("c", rank=NORMAL), 29.0)
    assert backlog.pop(29.0) == 1


def test_only_who_is_over_age_passes_a_better_class() -> None:
    """A normal ticket gets nothing out of a background one's age."""
    backlog = filled(Claim("b", rank=BACKGROUND))
    for ticket, rank in ((10, INTERACTIVE), (11, NORMAL), (12, INTERACTIVE), (13, NORMAL)):
        backlog.push(ticket, Claim("c", rank=rank), 20.0)
    backlog.push(1, Claim("b", rank=BACKGROUND), 0.1)
    assert [backlog.pop(29.0) for _ in range(6)] == [0, 10, 1, 12, 11, 13]


def test_two_worse_classes_over_age_take_turns() -> None:
    backlog = filled(*[Claim("b", rank=BACKGROUND)] * 2, *[Claim("n", rank=NORMAL)] * 2)
    for ticket in range(10, 16):
        backlog.push(ticket, Claim("i", rank=INTERACTIVE), 29.0)
    order = [backlog.pop(29.0) for _ in range(8)]
    assert order == [0, 10, 2, 11, 1, 12, 3, 13]


def test_of_those_over_age_the_one_with_the_least_goes_first() -> None:
    """A flood does not stand in the way of a single ticket of its own class."""
    backlog = filled(*[Claim("flood", rank=BACKGROUND)] * 4)
    backlog.push(4, Claim("single", rank=BACKGROUND), 0.5)
    for ticket in range(10, 13):
        backlog.push(ticket, Claim("i", rank=INTERACTIVE), 29.0)
    assert [backlog.pop(29.0) for _ in range(4)] == [0, 10, 4, 11]


@pytest.mark.parametrize(("seconds", "starvation", "promoted"), [(1.0, 30.0, 28.0), (5.0, 30.0, 20.0), (14.0, 30.0, 15.0), (1.0, 8.0, 6.0)])
def test_promotion_leaves_time_for_two_calls_but_not_before_half(seconds: float, starvation: float, promoted: float) -> None:
    for now, first in ((promoted - 0.01, 1), (promoted, 0)):
        backlog: Backlog[int] = Backlog(9)
        backlog.started(Claim(), -20.0)
        backlog.ended(Claim(), seconds, -20.0)
        backlog.max_starvation = starvation
        backlog.push(0, Claim("b", rank=NORMAL), 0.0)
        backlog.push(1, Claim("i", rank=INTERACTIVE), 0.0)
        backlog.started(Claim("i", rank=INTERACTIVE), 0.0)
        assert backlog.pop(now) == first


def test_of_a_flood_over_age_an_eighth_goes_ahead_and_only_of_a_flood() -> None:
    """Three at once, which is the tenth of 30 s that was saved up, then each eighth call."""
    backlog = filled(*[Claim("b", rank=BACKGROUND)] * 40)

    def pop(now: float) -> int:
        ticket = backlog.pop(now)
        rank = INTERACTIVE if ticket >= 100 else BACKGROUND
        backlog.ended(Claim("i" if ticket >= 100 else "b", rank=rank), 1.0, now)
        return rank

    assert pop(20.0) == BACKGROUND          # of its own right
    for ticket in range(100, 200):
        backlog.push(ticket, Claim("i", rank=INTERACTIVE), 21.0)
    assert all(pop(now) == INTERACTIVE for now in (21.0, 29.0, 35.0, 49.0, 49.9))
    order = [pop(50.0) for _ in range(40)]
    ahead = [turn for turn, rank in enumerate(order) if rank == BACKGROUND]
    assert ahead[:4] == [0, 2, 4, 6] and ahead[-1] - ahead[-2] == 8 and len(ahead) == 8


def test_a_capped_clients_tickets_make_no_flood() -> None:
    backlog = filled(*[Claim("capped", rank=BACKGROUND)] * 40, Claim("b", rank=BACKGROUND))
    backlog.started(Claim("c", rank=BACKGROUND), 20.0)
    for ticket in (100, 101):
        backlog.push(ticket, Claim("i", rank=INTERACTIVE), 29.0)
    assert [backlog.pop(29.0, lambda client: client != "capped") for _ in range(4)] == [100, 40, 101, None]


def test_age_changes_nothing_inside_a_class() -> None:
    backlog = filled(*[Claim("old")] * 5)
    for ticket in (10, 11):
        backlog.push(ticket, Claim("new"), 100.0)
    assert drain(backlog, 100.0) == [0, 10, 1, 11, 2, 3, 4]


def test_no_starvation_limit() -> None:
    backlog = filled(Claim(rank=BACKGROUND), Claim(rank=INTERACTIVE))
    backlog.max_starvation = math.inf
    assert backlog.pop(1e9) == 1


# -- bounded -----------------------------------------------------------------------------------------------------------


def test_nobody_waits_at_limit_zero() -> None:
    backlog: Backlog[int] = Backlog(0)
    assert backlog.push(1, Claim(rank=INTERACTIVE), 0.0) == 1 and len(backlog) == 0
    backlog = filled(Claim("a"), Claim("a"))
    backlog.limit = 0
    assert backlog.push(9, Claim("b"), 0.0) == 9 and len(backlog) == 2


def test_the_greediest_clients_newest_ticket_of_his_worst_class_makes_room() -> None:
    a, worst = Claim("a", rank=INTERACTIVE), Claim("a", rank=NORMAL)
    backlog = filled(a, worst, worst, a, Claim("b"), limit=5)
    assert backlog.push(10, Claim("c"), 1.0) == 2
    assert backlog.push(11, Claim("c"), 1.0) == 1       # a has 3, c would have 2
    assert backlog.push(12, Claim("c"), 1.0) == 12      # a has 2, c would have 3
    assert backlog.push(13, Claim("b"), 1.0) == 13      # a has 2, b would have as many
    assert len(backlog) == 5


def test_greed_is_measured_by_weight() -> None:
    backlog = filled(*[Claim("a", weight=4.0)] * 6, *[Claim("b")] * 3, limit=9)
    assert backlog.push(20, Claim("c"), 0.0) == 8       # 6/4 and 3/1 against 1/1
    assert backlog.push(21, Claim("c", weight=0.5), 0.0) == 21


def test_a_clients_own_flood_makes_room_for_what_is_more_urgent_to_him() -> None:
    backlog = filled(*[Claim("a", rank=BACKGROUND)] * 3, limit=3)
    assert backlog.push(10, Claim("a", rank=NORMAL), 0.0) == 2
    assert backlog.push(11, Claim("a", rank=BACKGROUND), 0.0) == 11
    assert [backlog.push(ticket, Claim("a", rank=INTERACTIVE), 0.0) for ticket in range(12, 16)] == [1, 0, 10, 15]


def test_whose_time_is_up_goes_before_anybody_else() -> None:
    backlog = filled(Claim("a"), Claim("a"), Claim("b", deadline=5.0), limit=3)
    assert backlog.push(10, Claim("b"), 5.0) == 2
    assert backlog.expire(5.0) == [] and len(backlog) == 3


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_expired_ones_are_reported_once_and_never_served() -> None:
    backlog = filled(Claim(deadline=5.0), Claim(deadline=7.0), Claim(), Claim(deadline=6.0))
    assert backlog.next_deadline() == 5.0 and backlog.expire(4.9) == []
    assert backlog.pop(6.0) == 1
    assert backlog.next_deadline() == 5.0 and len(backlog) == 3 and backlog.oldest_since() == 0.0    # they have to be taken out yet
    assert [backlog.position(ticket) for ticket in range(4)] == [0, 0, 1, 0]
    assert backlog.remove(3) and not backlog.remove(3)
    assert backlog.expire(6.0) == [0] and backlog.expire(6.0) == []
    assert backlog.next_deadline() == math.inf and len(backlog) == 1


# -- shares ------------------------------------------------------------------------------------------------------------


def test_clients_take_turns_by_weight() -> None:
    backlog = filled(*[Claim("a", weight=1.0)] * 4, *[Claim("b", weight=2.0)] * 4)
    assert drain(backlog) == [0, 4, 5, 1, 6, 7, 2, 3]


def test_shares_are_of_time_not_of_calls() -> None:
    """a's calls take three seconds and b's one: while the mean says so already, and when only the end tells."""
    backlog = filled(*[Claim("a")] * 20, *[Claim("b")] * 20)
    served = Counter()
    for _ in range(20):
        client = "a" if backlog.pop(0.0) < 20 else "b"
        seconds = 3.0 if client == "a" else 1.0
        backlog.ended(Claim(client), seconds, 0.0)
        served[client] += seconds
    assert abs(served["a"] - served["b"]) <= 3.0


def test_who_was_away_has_saved_up_nothing() -> None:
    backlog = filled(*[Claim("a")] * 20)
    backlog.push(100, Claim("b"), 0.0)
    for _ in range(10):
        ticket = backlog.pop(0.0)
        backlog.ended(Claim("b" if ticket == 100 else "a"), 1.0, 0.0)
    for ticket in range(101, 104):
        backlog.push(ticket, Claim("b"), 0.0)
    assert drain(backlog)[:6] == [101, 9, 102, 10, 103, 11]


def test_leaving_does_not_clear_a_debt() -> None:
    """b has used nine seconds and a half and comes back: a is served for as long first."""
    backlog = filled(*[Claim("a")] * 20)
    backlog.started(Claim("b"), 0.0)
    backlog.ended(Claim("b"), 9.5, 0.0)
    backlog.push(100, Claim("b"), 0.0)
    assert drain(backlog).index(100) == 10


def test_calls_that_run_are_charged_before_they_end() -> None:
    backlog = filled(*[Claim("a")] * 4)
    for _ in range(4):
        backlog.started(Claim("b"), 0.0)
    backlog.push(10, Claim("b"), 0.0)
    assert [backlog.pop(0.0) for _ in range(5)] == [0, 1, 2, 3, 10]


def test_a_call_that_used_nothing_costs_nothing() -> None:
    backlog = filled(Claim("a"), Claim("b"), Claim("a"))
    claims = [Claim("a"), Claim("b"), Claim("a")]
    for _ in range(5):                      # its worker dies each time, and it is put back
        ticket = backlog.pop(0.0)
        backlog.ended(claims[ticket], 0.0, 0.0)
        backlog.push(ticket, claims[ticket], 0.0)
    assert sorted(drain(backlog)) == [0, 1, 2]


def test_a_client_at_his_cap_is_skipped_and_paid_for_no_missed_turn() -> None:
    backlog = filled(*[Claim("capped")] * 30, *[Claim("a")] * 30)
    order = [backlog.pop(0.0, lambda client: client == "a") for _ in range(10)]
    for _ in range(10):
        backlog.ended(Claim("a"), 1.0, 0.0)
    assert order == list(range(30, 40))
    assert drain(backlog)[:6] == [0, 1, 40, 2, 41, 3]


def test_who_was_passed_over_once_keeps_what_he_is_owed_later() -> None:
    """Charged ten seconds for a call that took less than one: until that is made up for he goes first."""
    backlog = filled(*[Claim("x")] * 10, *[Claim("a")] * 30)
    assert backlog.pop(0.0, lambda client: client == "a") == 10
    assert backlog.pop(0.0) == 0
    backlog.ended(Claim("x"), 10.0, 0.0)
    while backlog.pop(0.0) != 1:
        backlog.ended(Claim("a"), 1.0, 0.0)
    for _ in range(8):
        assert backlog.pop(0.0) > 10
        backlog.ended(Claim("a"), 1.0, 0.0)
    for ticket in (2, 3, 4):
        backlog.ended(Claim("x"), 0.6, 0.0)
        assert backlog.pop(0.0) == ticket


def test_of_two_who_have_had_the_same_the_first_to_wait_goes_first() -> None:
    backlog: Backlog[str] = Backlog(9)
    for client in "acc":
        backlog.started(Claim(client), 0.0)     # a is charged a second, and the present is at one
    backlog.push("b", Claim("b"), 0.0)
    backlog.push("a", Claim("a"), 0.0)
    assert [backlog.pop(0.0), backlog.pop(0.0)] == ["b", "a"]


def test_a_call_that_used_nothing_says_nothing_about_the_next() -> None:
    """Neither how early one has to be promoted, nor what its client is charged."""
    backlog = filled(Claim("b", rank=BACKGROUND))
    for seconds in (4.0, 0.0, 0.0, 0.0):
        backlog.started(Claim("i", rank=INTERACTIVE), 0.0)
        backlog.ended(Claim("i", rank=INTERACTIVE), seconds, 0.0)
    backlog.push(1, Claim("i", rank=INTERACTIVE), 1.0)
    assert backlog.pop(22.0) == 0
    backlog = filled(*[Claim("x")] * 3, *[Claim("a")] * 9)
    for seconds in (4.0, *[0.0] * 10):
        backlog.started(Claim("x"), 0.0)
        backlog.ended(Claim("x"), seconds, 0.0)
    order = [backlog.pop(0.0) for _ in range(12)]
    assert order.index(2) - order.index(1) == 2         # a is charged four seconds as well, the mean of all


def test_what_a_client_is_charged_follows_his_calls_slowly() -> None:
    backlog = filled(*[Claim("a")] * 30)
    for seconds in (1.0, 1.0, 6.0):
        backlog.started(Claim("x"), 0.0)
        backlog.ended(Claim("x"), seconds, 0.0)
    x = backlog._classes[NORMAL]._accounts["x"]
    assert (x.mean, x.time, backlog._mean) == (2.0, 8.0, 2.0)
    backlog.started(Claim("x", weight=4.0), 0.0)
    assert x.time == 8.5


def test_ending_what_has_not_started() -> None:
    backlog = filled(Claim("a"))
    for client in ("a", "b"):
        with pytest.raises(KeyError):
            backlog.ended(Claim(client), 1.0, 0.0)
    assert backlog.pop(0.0) == 0


def remembered(backlog: Backlog) -> int:
    return sum(shares.accounts for shares in backlog._classes)


def test_who_has_gone_is_forgotten() -> None:
    backlog: Backlog[int] = Backlog(100)
    backlog.started(Claim("stays"), 0.0)
    for ticket in range(5000):
        claim = Claim(f"client {ticket}")
        backlog.push(ticket, claim, 0.0)
        assert backlog.pop(0.0) == ticket
        backlog.ended(claim, 1.0, 0.0)
    assert remembered(backlog) < 1100
    backlog.ended(Claim("stays"), 1.0, 0.0)
    assert remembered(backlog) == 0


def test_a_debtor_is_forgotten_when_the_others_have_caught_up() -> None:
    backlog = filled(*[Claim("a")] * 9)
    backlog.started(Claim("b"), 0.0)
    backlog.ended(Claim("b"), 5.0, 0.0)
    counts = []
    while backlog.pop(0.0) is not None:
        counts.append(remembered(backlog))
        backlog.ended(Claim("a"), 1.0, 0.0)
    assert counts == [2, 2, 2, 2, 2, 1, 1, 1, 1]


def test_new_names_do_not_starve_who_waits() -> None:
    backlog = filled(*[Claim("a")] * 2)
    for ticket in range(100, 3000):
        backlog.push(ticket, Claim(f"client {ticket}"), 0.0)
        served = backlog.pop(0.0)
        backlog.ended(Claim("a" if served < 100 else f"client {served}"), 1.0, 0.0)
        if served == 1:
            break
    assert served == 1 and ticket > 101


# -- position ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_position_and_waiting_foretell_the_order(seed: int) -> None:
    rng, backlog = random.Random(seed), Backlog(1000)
    claims = {ticket: Claim(rng.choice("abcde"), rank=rng.randrange(3)) for ticket in range(200)}
    claims = {ticket: claim._replace(weight=1.0 + (claim.client in "ab")) for ticket, claim in claims.items()}
    for ticket, claim in claims.items():
        backlog.push(ticket, claim, 0.0)
        if rng.random() < 0.3:
            served = claims[backlog.pop(0.0)]
            if rng.random() < 0.8:
                backlog.ended(served, 1.0, 0.0)
    foretold = [ticket for ticket, _, _ in backlog.waiting()]
    assert [backlog.position(ticket) for ticket in foretold] == list(range(1, len(foretold) + 1))
    assert all(backlog._entries[ticket].claim == claim for ticket, claim, _ in backlog.waiting())
    assert drain(backlog) == foretold and len(foretold) > 100


# -- everything at once ------------------------------------------------------------------------------------------------


class Ledger:
    """What a backlog must not contradict: who waits with what claim, what runs, and how many of each client."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.now = 0.0
        self.limit = 40
        self.backlog: Backlog[int] = Backlog(self.limit)
        self.waits: dict[int, Claim] = {}
        self.runs: dict[int, Claim] = {}
        self.arrived: list[int] = []        # in order, for first come, first served
        self.left: Counter[int] = Counter()
        self.cap = {client: cap for client, cap in zip("abcdef", (1, 2, 3, 9, 9, 9))}
        self.numbers = iter(range(1 << 30))

    def running(self, client: str) -> int:
        return sum(claim.client == client for claim in self.runs.values())

    def may_run(self, client: str) -> bool:
        return self.running(client) < self.cap[client]

    def arrive(self) -> None:
        client = self.rng.choice("aaaabbcdef")
        patience = self.rng.choice((0.0, 2.0, 30.0, math.inf))
        claim = Claim(client, 1.0 + (client == "f") * 3, self.rng.randrange(3), self.now + patience)
        self.push(next(self.numbers), claim)

    def push(self, ticket: int, claim: Claim) -> None:
        before = len(self.waits)
        self.waits[ticket] = claim
        self.arrived.append(ticket)
        out = self.backlog.push(ticket, claim, self.now)
        assert (out is not None) == (before >= self.limit)
        if out is not None:
            self.leave(out)

    def leave(self, ticket: int) -> Claim:
        self.left[ticket] += 1
        self.arrived.remove(ticket)
        return self.waits.pop(ticket)

    def serve(self) -> None:
        eligible = {t: c for t, c in self.waits.items() if c.deadline > self.now and self.may_run(c.client)}
        ticket = self.backlog.pop(self.now, self.may_run)
        assert (ticket is None) == (not eligible)
        if ticket is not None:
            assert ticket in eligible
            claim = self.waits[ticket]
            same = [t for t in self.arrived if t in eligible and self.waits[t][0::2] == claim[0::2]]     # client and rank
            assert same[0] == ticket, "first come, first served for one client in one class"
            self.runs[ticket] = self.leave(ticket)
            assert self.running(claim.client) <= self.cap[claim.client]

    def end(self) -> None:
        if self.runs:
            ticket = self.rng.choice(list(self.runs))
            claim = self.runs.pop(ticket)
            died = self.rng.random() < 0.2
            self.backlog.ended(claim, 0.0 if died else self.rng.expovariate(0.5), self.now)
            if died and self.rng.random() < 0.7:
                self.left[ticket] -= 1
                self.push(ticket, claim)

    def cancel(self) -> None:
        ticket = self.rng.choice(self.arrived) if self.arrived and self.rng.random() < 0.8 else -1
        assert self.backlog.remove(ticket) == (ticket in self.waits)
        if ticket in self.waits:
            self.leave(ticket)

    def expire(self) -> None:
        due = {ticket for ticket, claim in self.waits.items() if claim.deadline <= self.now}
        found = self.backlog.expire(self.now)
        assert sorted(found) == sorted(due)
        for ticket in found:
            self.leave(ticket)

    def reload(self) -> None:
        self.limit = self.backlog.limit = self.rng.choice((20, 40, 40, 60))
        self.backlog.max_starvation = self.rng.choice((1.0, 30.0, math.inf))

    def check(self) -> None:
        assert len(self.backlog) == len(self.waits)
        assert self.backlog.next_deadline() == min((claim.deadline for claim in self.waits.values()), default=math.inf)
        on_time = [ticket for ticket, _, _ in self.backlog.waiting()]
        assert {ticket for ticket, claim in self.waits.items() if claim.deadline > self.now} <= set(on_time) <= set(self.waits)
        assert remembered(self.backlog) <= 3 * len(self.cap)


@pytest.mark.parametrize("seed", range(3))
def test_ten_thousand_steps_against_a_plain_list(seed: int) -> None:
    ledger = Ledger(seed)
    steps = [ledger.arrive, ledger.serve, ledger.end, ledger.cancel, ledger.expire, ledger.reload]
    for phase, _ in groupby(range(10_000), lambda step: step // 500):
        weights = [(30, 10, 10, 5, 3, 0.1), (10, 12, 12, 2, 1, 0.1), (5, 25, 25, 2, 0.2, 0.1)][phase % 3]
        for step in ledger.rng.choices(steps, weights, k=500):
            ledger.now += ledger.rng.expovariate(3.0)
            step()
            ledger.check()
    while ledger.runs or ledger.waits:
        ledger.expire()
        ledger.serve()
        ledger.end()
    assert max(ledger.left.values()) == 1 and len(ledger.left) == next(ledger.numbers)
    assert len(ledger.backlog) == remembered(ledger.backlog) == 0 and ledger.backlog._held == {} and ledger.backlog._deadlines == []


@pytest.mark.parametrize(("depth", "slots", "service", "seconds"), [
    (64, 1, 2.0, 64.0), (64, 4, 2.0, 16.0),     # half of the queue has had its turn
    (16, 2, 0.5, 2.0), (3, 1, 2.0, 3.0),
    (1, 1, 2.0, 2.0), (0, 1, 2.0, 2.0), (0, 4, 2.0, 0.5),       # short or no queue: when a worker is likely to be free
    (4, 0, 2.0, 4.0), (64, 1, 0.0, 0.0),        # a pool that is being retired; calls that take no time
])
def test_when_to_come_again(depth: int, slots: int, service: float, seconds: float) -> None:
    assert retry_after(depth, slots, service) == seconds
