"""What a request may wish for in the queue, and what is made of it."""

import math
from types import SimpleNamespace

import pytest

from hermes.config import CLASSES
from hermes.errors import BadRequest
from hermes.frontend.exchange import Call
from hermes.frontend.http1 import Request
from hermes.frontend.principal import Principal
from hermes.frontend.sites import _EXPOSED
from hermes.frontend.wishes import asker_of, patience_of, rank_of, told

INTERACTIVE, NORMAL, BACKGROUND = range(3)


def call(wish: str | None = None, deadline: str | None = None, **who) -> Call:
    headers = {name: value for name, value in (("x-hermes-class", wish), ("x-hermes-deadline", deadline)) if value is not None}
    return Call(Request("POST", "/", "", headers), None, principal=Principal("x", **who))


@pytest.mark.parametrize(("wish", "usual", "best", "rank"), [
    (None, NORMAL, INTERACTIVE, NORMAL), (None, NORMAL, BACKGROUND, BACKGROUND), (None, BACKGROUND, NORMAL, BACKGROUND),
    ("interactive", NORMAL, INTERACTIVE, INTERACTIVE), ("interactive", BACKGROUND, INTERACTIVE, INTERACTIVE), ("interactive", NORMAL, NORMAL, NORMAL),
    ("interactive", INTERACTIVE, BACKGROUND, BACKGROUND), ("normal", INTERACTIVE, BACKGROUND, BACKGROUND),
    ("background", INTERACTIVE, INTERACTIVE, BACKGROUND), ("background", NORMAL, NORMAL, BACKGROUND)])
def test_what_is_asked_for_else_what_is_usual_but_never_better_than_he_may(wish: str | None, usual: int, best: int, rank: int) -> None:
    assert rank_of(call(wish, best_rank=best), usual) == rank


@pytest.mark.parametrize("wish", ["", " ", "Interactive", "interactive ", "interactive,normal", "interactive, interactive", "0", "best", "normal\x00", "nörmal", "x" * 9999])
def test_no_such_class(wish: str) -> None:
    with pytest.raises(BadRequest) as caught:
        rank_of(call(wish), NORMAL)
    assert all(name in caught.value.text for name in CLASSES) and len(caught.value.text) < 100


@pytest.mark.parametrize(("deadline", "seconds"), [
    (None, math.inf), ("30s", 30.0), ("30", 30.0), ("130", 130.0), ("0.5", 0.5), ("500ms", 0.5), ("1m30s", 90.0), ("1h", 3600.0), ("1h1m1s1ms", 3661.001), ("1.5m", 90.0),
    ("0", 0.0), ("0s", 0.0), ("0ms", 0.0), ("0.000000001", 1e-9), ("999999999h", 999999999 * 3600.0), ("30s30s", 60.0), ("007s", 7.0)])
def test_deadlines(deadline: str | None, seconds: float) -> None:
    assert patience_of(call(deadline=deadline)) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize("deadline", ["", " ", "s", "-1", "-1s", "+1s", "1 s", " 1s", "1s ", "1S", "1d", "1us", "1.s", ".5s", "1.", ".", "1e3", "1e3s", "inf", "nan", "infinity",
                                      "0x10", "1_000", "1,5s", "1s,2s", "1s, 2s", "30s1", "٣s", "１s", "1s\n", "1\x00s", "1" * 10, "1" * 9999, "1s" * 9 + "x",
                                      "2026-11-27T00:00:00Z", "1.0000000001s"])
def test_malformed_deadlines(deadline: str) -> None:
    with pytest.raises(BadRequest) as caught:
        patience_of(call(deadline=deadline))
    assert "X-Hermes-Deadline" in caught.value.text and len(caught.value.text) < 120


def test_a_long_row_of_digits_is_refused_quickly() -> None:
    """The expression is made of repetitions inside of one: none of them may fit in two ways."""
    with pytest.raises(BadRequest):
        patience_of(call(deadline="1m" * 30_000 + "!"))


def test_on_whose_behalf() -> None:
    asked = call("background", "2s", weight=3.0, default_rank=INTERACTIVE)
    asker = asker_of(asked)
    assert (asker.claim.client, asker.claim.weight, asker.claim.rank, asker.claim.deadline, asker.patience) == ("x", 3.0, BACKGROUND, math.inf, 2.0)
    assert asked.rank == BACKGROUND and asker.leases is asked.leases


@pytest.mark.parametrize(("default", "route", "wish", "rank"), [
    (INTERACTIVE, BACKGROUND, None, BACKGROUND), (BACKGROUND, INTERACTIVE, None, BACKGROUND), (BACKGROUND, NORMAL, None, BACKGROUND), (NORMAL, INTERACTIVE, None, NORMAL),
    (NORMAL, BACKGROUND, "interactive", INTERACTIVE), (NORMAL, BACKGROUND, "normal", NORMAL)])
def test_embeddings_have_the_worse_of_their_own_and_their_clients_class_if_nobody_asks(default: int, route: int, wish: str | None, rank: int) -> None:
    assert asker_of(call(wish, default_rank=default), route).claim.rank == rank
    assert asker_of(call(wish, default_rank=default, best_rank=NORMAL), route).claim.rank == max(NORMAL, rank)


def test_a_bad_wish_leaves_the_call_as_it_was() -> None:
    for bad in (call("best"), call(deadline="soon")):
        with pytest.raises(BadRequest):
            asker_of(bad)
        assert bad.leases == []


def test_what_an_answer_tells() -> None:
    assert told(SimpleNamespace(first_position=7), 1.23456) == (("X-Hermes-Queue-Position", "7"), ("X-Hermes-Queue-Wait", "1.235"))
    assert told(SimpleNamespace(first_position=0), 0.0)[1][1] == "0.000"


def test_a_page_may_read_it() -> None:
    assert {name for name, _ in told(SimpleNamespace(first_position=0), 0.0)} <= set(_EXPOSED)
