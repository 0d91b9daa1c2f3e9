"""Totals by client, model and day, and the tokens of a day: in memory, with a clock that the test sets."""

from datetime import datetime, timezone

import pytest

from hermes.errors import QuotaExceeded
from hermes.observe.usage import KEPT, Reserve, Row, Spent, Usage
from tests.harness import in_threads

NOON = datetime(2026, 11, 27, 12, tzinfo=timezone.utc).timestamp()
DAY = 86_400


class Clock:
    def __init__(self, now: float = NOON):
        self.now = now

    def __call__(self) -> float:
        return self.now


def call(client: str = "ann", model: str = "gemma", **fields) -> Spent:
    return Spent(**{"client": client, "model": model, "ok": True, "error": False, "input_tokens": 10, "output_tokens": 5, "estimated": False,
                    "seconds": 0.5, **fields})


def test_totals() -> None:
    usage = Usage(Clock())
    for each in (call(), call(ok=False, error=True, estimated=True, seconds=0.25), call(ok=False), call(model="qwen"), call("bob")):
        usage.add(each)
    assert usage.rows("2026-11-27", "2026-11-27") == [
        Row("2026-11-27", "ann", "gemma", 3, 1, 1, 1, 30, 15, 1.25), Row("2026-11-27", "ann", "qwen", 1, 1, 0, 0, 10, 5, 0.5),
        Row("2026-11-27", "bob", "gemma", 1, 1, 0, 0, 10, 5, 0.5)]
    assert [row.client for row in usage.rows("2026-11-27", "2026-11-27", "bob")] == ["bob"]
    assert (usage.today("ann"), usage.today("bob"), usage.today("eve")) == (60, 15, 0)


def test_midnight() -> None:
    clock = Clock(NOON + DAY / 2 - 0.001)
    usage = Usage(clock)
    usage.add(call())
    assert (usage.day(), usage.tomorrow()[0]) == ("2026-11-27", "2026-11-28") and usage.tomorrow()[1] == pytest.approx(0.001, abs=1e-4)
    clock.now += 0.001
    assert (usage.day(), usage.tomorrow(), usage.today("ann")) == ("2026-11-28", ("2026-11-29", DAY), 0)
    usage.add(call())
    usage.add(call())
    assert [(row.day, row.requests) for row in usage.rows("", "9")] == [("2026-11-27", 1), ("2026-11-28", 2)]
    clock.now -= 1                              # set back: the earlier day goes on
    usage.add(call())
    assert usage.today("ann") == 30 and [row.requests for row in usage.rows("", "9")] == [2, 2]


def test_old_days_are_forgotten() -> None:
    clock = Clock()
    usage = Usage(clock)
    usage.add(call())
    clock.now += (KEPT - 1) * DAY
    usage.add(call())
    assert len(usage.rows("", "9")) == 2
    clock.now += DAY
    usage.add(call("bob"))
    assert [row.client for row in usage.rows("", "9")] == ["ann", "bob"] and usage.rows("", "9")[0].day != "2026-11-27"
    assert set(usage._tokens) == {(row.day, row.client) for row in usage.rows("", "9")}


def test_what_was_known_before() -> None:
    rows = [Row("2026-11-27", "ann", "gemma", 3, 3, 0, 0, 30, 15, 1.5), Row("2026-11-27", "ann", "qwen", 1, 1, 0, 0, 1, 1, 0.1),
            Row("2026-11-26", "ann", "gemma", 9, 9, 0, 0, 900, 900, 9.0), Row("2024-11-27", "ann", "gemma", 1)]
    usage = Usage(Clock(), rows)
    assert usage.today("ann") == 47
    usage.add(call())
    assert usage.today("ann") == 62 and usage.rows("2026-11-27", "2026-11-27", "ann")[0].requests == 4
    assert [row.day for row in usage.rows("", "9")] == ["2026-11-26", "2026-11-27", "2026-11-27"]


def test_changes_are_told_once() -> None:
    usage = Usage(Clock())
    usage.add(call())
    assert not usage.changed.is_set(), "nobody writes: nothing is remembered for him"
    usage.watch()
    usage.add(call("bob"))
    usage.add(call("bob"))
    assert usage.changed.is_set()
    assert [(row.client, row.requests) for row in usage.take_changes()] == [("bob", 2)]
    assert usage.take_changes() == [] and len(usage.take_changes(everything=True)) == 2


def test_64_threads_lose_nothing() -> None:
    usage = Usage(Clock())
    usage.watch()
    in_threads(64, lambda number: [usage.add(call(f"c{number % 4}")) for _ in range(500)])
    assert [row.requests for row in usage.rows("", "9")] == [8000] * 4
    assert [usage.today(f"c{number}") for number in range(4)] == [120_000] * 4
    assert sum(row.requests for row in usage.take_changes()) == 32_000


# -- quotas --------------------------------------------------------------------------------------------------------


def test_nobody_begins_when_the_quota_is_used_up() -> None:
    clock = Clock()
    usage = Usage(clock)
    reserve = Reserve(usage)
    reserve.take("ann", 15)
    usage.add(call())
    reserve.give_back("ann")
    with pytest.raises(QuotaExceeded) as caught:
        reserve.take("ann", 15)
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (429, "quota_exceeded", 59)
    assert "15 tokens a day" in caught.value.text and "2026-11-28T00:00:00Z" in caught.value.text
    reserve.take("ann", 16)
    reserve.take("bob", 1)
    clock.now += DAY / 2 - 3
    with pytest.raises(QuotaExceeded) as caught:
        reserve.take("ann", 15)
    assert caught.value.retry_after == 3
    clock.now += 3
    reserve.take("ann", 15)


@pytest.mark.parametrize("quota", [0, 1, 10, 64, 200])
def test_a_running_call_counts_as_a_token(quota: int) -> None:
    usage = Usage(Clock())
    reserve = Reserve(usage)

    def attempt(_: int) -> int:
        begun = 0
        for _ in range(5):
            try:
                reserve.take("ann", quota)
                begun += 1
            except QuotaExceeded:
                pass
        return begun

    assert sum(in_threads(64, attempt)) == quota


def test_64_threads_never_begin_a_call_too_many() -> None:
    """Each call takes one token when it ends: exactly the quota of them may ever begin, whoever is quicker."""
    usage = Usage(Clock())
    reserve = Reserve(usage)

    def attempt(_: int) -> int:
        begun = 0
        while True:
            try:
                reserve.take("ann", 1000)
            except QuotaExceeded:
                return begun
            begun += 1
            usage.add(call(input_tokens=0, output_tokens=1))
            reserve.give_back("ann")

    assert sum(in_threads(64, attempt)) <= 1000
    assert sum(row.requests for row in usage.rows("", "9")) == usage.today("ann") <= 1000
    assert attempt(0) + usage.today("ann") >= 1000, "what nobody took is still there"


def test_what_was_given_back_leaves_nothing_behind() -> None:
    reserve = Reserve(Usage(Clock()))
    reserve.take("ann", 1)
    reserve.give_back("ann")
    assert not reserve._running
    reserve.take("ann", 1)
