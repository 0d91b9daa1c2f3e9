"""The benchmark runs, and counts only what is whole. What it measures is not tested: that is for a quiet machine."""

import pytest

from tests.bench import __main__ as bench
from tests.bench import fronts, load
from tests.bench.upstream import END, PLAIN, TOKEN, TOKENS

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_one_short_round_through_hermes_and_directly() -> None:
    with fronts.upstream(1) as upstream, fronts.hermes(upstream, 2) as gateway:
        for port in (upstream, gateway.port):
            for body in ("stream", "plain"):
                run = fronts.load(kind="rate", port=port, clients=4, seconds=0.3, body=body)
                assert run["rate"] > 0 and run["wrong"] == 0 and run["firsts"]
            paced = fronts.load(kind="paced", port=port, clients=2, tokens=5)
            assert paced["wrong"] == 0 and len(paced["gaps"]) == 10
        burst = fronts.load(kind="burst", port=gateway.port, clients=20, path="/livez")
        assert burst["wrong"] == 0 and len(burst["times"]) == 20
        assert fronts.cpu(fronts.processes(gateway)) > 0 and fronts.pss(gateway.pid) > 1


@pytest.mark.parametrize(("answer", "verdict"), [
    (HEAD + TOKEN * TOKENS + END, True), (HEAD + TOKEN * (TOKENS - 1) + END, False), (HEAD + TOKEN * TOKENS, None), (PLAIN, True), (PLAIN[:-1], None),
    (PLAIN.replace(b"200", b"503", 1), False), ((HEAD + TOKEN * TOKENS + END).replace(b"200", b"502", 1), False), (b"", None)])
def test_only_whole_answers_count(answer: bytes, verdict: bool | None) -> None:
    assert load.whole(answer) is verdict


def test_table() -> None:
    results = {("streams/s, 1 clients", "direct"): 200.0, ("streams/s, 1 clients", "hermes"): 150.0, ("x, ms", "hermes"): 0.12345}
    assert bench.table(results).splitlines() == ["| figure | direct | hermes |", "| --- | --- | --- |", "| streams/s, 1 clients | 200 | 150 |",
                                                 "| x, ms |  | 0.123 |"]
