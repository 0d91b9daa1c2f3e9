"""python -m tests.bench [--json] [--quick]: run everything, print the table."""

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import threading
import time

from tests.bench import fronts
from tests.harness import Client, descriptors, eventually, get

CLIENTS = (1, 16, 64)
WORKERS = 16                # of the model that takes the load
PACED, PACED_TOKENS = 64, 400


def percentile(values: list[float], share: float) -> float:
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def throughput(ports: dict[str, int], rounds: int, seconds: float) -> dict:
    """Each figure in turn for each front, round by round, so that a machine that changes its speed changes it for all."""
    results: dict = {}
    wrong: dict[str, int] = dict.fromkeys(ports, 0)
    for kind, noun in (("stream", "streams"), ("plain", "plain answers")):
        for clients in (*CLIENTS, 256) if kind == "stream" else CLIENTS:
            runs: dict[str, list[dict]] = {name: [] for name in ports}
            for _ in range(rounds):
                for name, port in ports.items():
                    runs[name].append(fronts.load(kind="rate", port=port, clients=clients, seconds=seconds, body=kind))
            for name, done in runs.items():
                results[f"{noun}/s, {clients} clients", name] = statistics.median(run["rate"] for run in done)
                wrong[name] += sum(run["wrong"] for run in done)
                if clients == 1 and kind == "stream":
                    for label, share in (("p50", 0.5), ("p99", 0.99)):
                        results[f"time to first byte, 1 client, {label}, ms", name] = 1e3 * statistics.median(
                            percentile(run["firsts"], share) for run in done)
    return results | {("wrong answers", name): count for name, count in wrong.items()}


def paced(upstream: int, rounds: int) -> dict:
    """64 streams at 50 tokens a second: what they cost, and how much later the tokens come."""
    results: dict = {}
    gaps: dict[str, list[float]] = {"direct": [], "hermes": []}
    busy, tokens = [], PACED * 50
    with fronts.hermes(upstream, PACED) as gateway:
        for _ in range(rounds):
            for name, port in (("direct", upstream), ("hermes", gateway.port)):
                measured: list[float] = []
                watch = threading.Thread(target=lambda: measured.append(_busy_share(gateway)))
                watch.start()
                run = fronts.load(kind="paced", port=port, clients=PACED, tokens=PACED_TOKENS)
                watch.join()
                gaps[name].append(percentile(run["gaps"], 0.99))
                assert run["wrong"] == 0, run["wrong"]
                if name == "hermes":
                    busy += measured
    for name, values in gaps.items():
        results["64 paced streams: p99 gap between tokens, ms", name] = 1e3 * statistics.median(values)
    share = statistics.median(busy)
    results["64 paced streams: CPU of all processes, % of a core", "hermes"] = 100 * share
    results["CPU seconds per million relayed tokens", "hermes"] = share / tokens * 1e6
    return results


def _busy_share(gateway) -> float:
    """Processor seconds a second, while the streams run."""
    time.sleep(1.5)                         # they have all begun
    pids, start = fronts.processes(gateway), time.monotonic()
    before = fronts.cpu(pids)
    time.sleep(PACED_TOKENS * 0.02 - 3)
    return (fronts.cpu(pids) - before) / (time.monotonic() - start)


def start_and_memory(upstream: int, rounds: int) -> dict:
    times, parents, workers = [], [], []
    for _ in range(rounds):
        start = time.monotonic()
        with fronts.hermes(upstream, 8) as gateway:
            times.append(time.monotonic() - start)
            pids = gateway.workers("m")
            parents.append(fronts.pss(gateway.pid))
            workers.append(statistics.mean(fronts.pss(pid) for pid in pids))
    return {("start to ready, 8 workers, s", "hermes"): statistics.median(times), ("PSS of the parent, MB", "hermes"): statistics.median(parents),
            ("PSS of an idle worker, MB", "hermes"): statistics.median(workers)}


def crowd(upstream: int, waiting: int = 1000) -> dict:
    """What clients cost who only wait for their turn, and a burst of small questions."""
    with fronts.hermes(upstream, 1) as gateway, contextlib.ExitStack() as stack:
        burst = [fronts.load(kind="burst", port=gateway.port, clients=200, path="/livez") for _ in range(5)]
        before = fronts.pss(gateway.pid)
        descriptors_before = descriptors(gateway.pid)
        clients = [stack.enter_context(Client(gateway.port)) for _ in range(waiting + 1)]
        for client in clients:
            client.send("POST", "/api/generate", {"model": "m", "prompt": "paced 100000"})
        eventually(lambda: gateway.model("m")["queue"]["depth"] == waiting, timeout=60)
        return {("1,000 waiting clients: parent memory, + MB", "hermes"): fronts.pss(gateway.pid) - before,
                ("1,000 waiting clients: descriptors each", "hermes"): (descriptors(gateway.pid) - descriptors_before) / waiting,
                ("1,000 waiting clients: a GET of /livez, ms", "hermes"): _one_get(gateway.port),
                ("200 clients at once, small GET, p99, ms", "hermes"): 1e3 * statistics.median(percentile(run["times"], 0.99) for run in burst),
                ("200 clients at once: not answered", "hermes"): sum(run["wrong"] for run in burst)}


def _one_get(port: int) -> float:
    start = time.perf_counter()
    assert get(port, "/livez").status == 200
    return 1e3 * (time.perf_counter() - start)


def derived(results: dict) -> dict:
    """The ratios that the figures are quoted as."""
    more: dict = {}
    for (figure, name), value in results.items():
        if name == "hermes" and "s/s, " in figure:
            for other in ("direct", "nginx"):
                if (figure, other) in results:
                    more[figure, f"hermes/{other}"] = value / results[figure, other]
        if name == "hermes" and (figure, "direct") in results and ("first byte" in figure or "gap" in figure):
            more[figure, "added"] = value - results[figure, "direct"]
    streams = {clients: results[f"streams/s, {clients} clients", "hermes"] for clients in (*CLIENTS, 256)}
    more["streams/s at the worst of 16 to 256 clients, of its best", "hermes"] = min(list(streams.values())[1:]) / max(streams.values())
    more["relayed tokens/s", "hermes"] = 65 * max(streams.values())
    return more


def machine() -> str:
    model = "processor unknown"
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    return f"{os.cpu_count()} cores ({model}), Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"


def table(results: dict) -> str:
    figures = list(dict.fromkeys(figure for figure, _ in results))
    columns = [name for name in ("direct", "nginx", "hermes", "hermes/direct", "hermes/nginx", "added") if any(n == name for _, n in results)]
    rows = [["figure", *columns], ["---"] * (len(columns) + 1)]
    for figure in figures:
        rows.append([figure, *(_number(results.get((figure, name))) for name in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--quick", action="store_true", help="one short round: whether it runs, not what it measures")
    options = parser.parse_args()
    rounds, seconds = (1, 0.5) if options.quick else (5, 1.5)
    with fronts.upstream() as upstream:
        with fronts.hermes(upstream, WORKERS) as gateway, fronts.nginx(upstream) as nginx:
            ports = {"direct": upstream, **({"nginx": nginx} if nginx else {}), "hermes": gateway.port}
            results = throughput(ports, rounds, seconds)
        results |= paced(upstream, 1 if options.quick else 3)
        results |= start_and_memory(upstream, rounds)
        results |= crowd(upstream)
    results |= derived(results)
    if options.json:
        print(json.dumps({"machine": machine(), "figures": [{"figure": f, "of": n, "value": v} for (f, n), v in results.items()]}, indent=1))
    else:
        print(f"{machine()}; load, upstream and front on the same cores; medians of {rounds} rounds\n\n{table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
