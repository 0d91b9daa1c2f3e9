"""The script of a storm: what a seed decides, and that whatever is done is undone."""

import itertools

import pytest

from hermes.config import ConfigError, loads
from tests.chaos.asks import body, message, number_of, prompt
from tests.chaos.house import CALM, LIVES, Caps, config, spoil
from tests.chaos.plan import BROKEN, NAMES, Ask, Continue, Manner, Outage, Reload, Rest, Step, Stop, script

MINUTE = script(1, 60)


def test_a_seed_is_a_script() -> None:
    assert MINUTE == script(1, 60) != script(2, 60)
    assert list(map(str, MINUTE)) == list(map(str, script(1, 60)))


@pytest.mark.parametrize("seconds", [0, 1, 8.5, 30])
def test_a_shorter_storm_is_the_beginning_of_a_longer_one(seconds: float) -> None:
    short = script(1, seconds)
    assert short == MINUTE[:len(short)] and all(step.at < seconds for step in short) and MINUTE[len(short)].at >= seconds


def test_it_is_in_order_and_no_number_comes_twice() -> None:
    times = [step.at for step in MINUTE]
    assert times == sorted(times)
    numbers = [step.number for step in MINUTE] + [step.behind.number for step in MINUTE if isinstance(step, Ask) and step.behind]
    assert len(numbers) == len(set(numbers))


def test_a_minute_has_everything_in_it() -> None:
    assert {type(step).__name__ for step in MINUTE} == {kind.__name__ for kind in Step.__subclasses__()}
    asks = [step for step in MINUTE if isinstance(step, Ask)]
    assert {ask.manner.phase for ask in asks} == {"stay", "slow", "stall", "head", "body", "sent", "streaming"}
    assert {"cut", "cut_body", "stall", "refuse", "error_line", "no_done", "garbage", "status", "delay", "drip"} <= {ask.fault for ask in asks}
    reloads = [step for step in MINUTE if isinstance(step, Reload)]
    assert {step.broken for step in reloads} == {"", *BROKEN} and any(step.unlisted for step in reloads) and any(step.loaded for step in reloads)
    assert any(ask.behind for ask in asks) and all(ask.manner == Manner() for ask in asks if ask.behind)
    assert 1500 < len(MINUTE) < 3500


@pytest.mark.parametrize("seed", range(5))
def test_what_is_done_is_undone_later(seed: int) -> None:
    steps = script(seed, 120)
    undone = {step.of: step.at for step in steps if isinstance(step, Continue)}
    stops = [step for step in steps if isinstance(step, Stop) and step.at < 99]
    assert stops and all(undone[step.number] > step.at for step in stops)
    outages = [step.down for step in steps if isinstance(step, Outage)]
    assert outages and all(down is (number % 2 == 0) for number, down in enumerate(outages)), "gone, back, gone, back"
    rests = [step for step in steps if isinstance(step, Rest)]
    for pause in (step for step in rests if step.paused and step.at < 118):
        assert any(step.number == pause.number + 1 and step.model == pause.model and not step.paused and 0 < step.at - pause.at < 2 for step in rests)


def test_each_request_is_its_own() -> None:
    asks = [step for step in MINUTE if isinstance(step, Ask)]
    assert len({prompt(ask) for ask in asks}) == len(asks)
    assert all(number_of(prompt(ask)) == ask.number for ask in asks)
    assert [number_of(text) for text in ("", "x", "chaos", "chaos x y", "chaos 7")] == [None] * 5
    head, said = message(asks[0], 1)
    assert head.endswith(b"Content-Length: %d\r\n\r\n" % len(said)) and said == body(asks[0])


def test_as_text_a_step_leaves_out_what_is_as_usual() -> None:
    assert str(Ask(7, 1.5, "/api/chat", "m", True, 3, 0.0, wish="refuse=1")) == "#7 Ask route=/api/chat model=m stream=True tokens=3 interval=0.0 wish=refuse=1"
    assert str(Outage(8, 2.0, False)) == "#8 Outage down=False"


class TestHouse:
    @pytest.mark.parametrize("reload", [CALM, *itertools.islice((step for step in MINUTE if isinstance(step, Reload)), 20)], ids=str)
    def test_a_file_is_good_unless_it_is_spoilt(self, reload: Reload) -> None:
        settings = loads(config(reload))
        names = {name: model for name, model in NAMES.items() if name != "g" or not reload.unlisted}
        assert {model.name: model.model for model in settings.models} == names and len(settings.clients) == 4
        assert [model.max_concurrency for model in settings.models] == [size for name, size in zip(NAMES, reload.sizes, strict=True) if name in names]
        assert settings.defaults.max_concurrency == reload.sizes[1], "an unlisted g has as many"

    @pytest.mark.parametrize("how", set(BROKEN) - {"gone"})
    def test_what_is_spoilt_is_not_taken(self, how: str) -> None:
        with pytest.raises(ConfigError):
            loads(spoil(config(CALM), how))

    def test_gone(self) -> None:
        assert spoil(config(CALM), "gone") is None


class TestCaps:
    def test_the_present_ones_hold(self) -> None:
        caps = Caps()
        caps.change(0.0, (3, 2, 1))
        m, g, e = NAMES.values()
        assert caps.allowed(0.0) == caps.allowed(1e6) == {m: 3, g: 2, e: 1}
        assert caps.judge(1.0, {m: 3, g: 2, e: 0}) == []
        assert caps.judge(1.0, {m: 4, g: 2, e: 2}) == [f"4 calls of {m} at once, where 3 were allowed", f"2 calls of {e} at once, where 1 were allowed"]

    def test_who_runs_runs_on_and_no_longer_than_a_call_may_last(self) -> None:
        caps = Caps()
        caps.change(0.0, (4, 1, 1))
        caps.change(100.0, (1, 2, 1))
        caps.change(101.0, (2, 1, 1))
        m, g, e = NAMES.values()
        assert caps.allowed(101.0) == {m: 4, g: 2, e: 1}
        assert caps.allowed(100.5 + LIVES) == {m: 2, g: 2, e: 1}
        assert caps.allowed(101.5 + LIVES) == {m: 2, g: 1, e: 1}
