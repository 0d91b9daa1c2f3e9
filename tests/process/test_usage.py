"""The usage of a real Hermes: what counts and how much, and what is left of it after a stop and after a kill."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from hermes.simulator import Simulator
from tests.harness import ROOT, Client, Hermes, eventually, get, in_threads, post

CHAT = [{"role": "user", "content": "hello"}]
MODELS = '[models.gemma]\nmodel = "gemma3:270m"\nmax_concurrency = 4\nmax_queue = 100\n'


def config(folder: Path) -> str:
    return f'[server]\nstate_dir = "{folder}"\n' + MODELS


def usage(hermes: Hermes) -> dict[str, dict]:
    """By model; a test may run over midnight."""
    found: dict[str, dict] = {}
    for row in get(hermes.port, "/v1/usage?days=2").json()["days"]:
        total = found.setdefault(row["model"], {key: 0 for key, value in row.items() if isinstance(value, int | float)})
        for key in total:
            total[key] += row[key]
    return found


def told(**fields) -> dict:
    return {"requests": 0, "ok": 0, "errors": 0, "estimated": 0, "input_tokens": 0, "output_tokens": 0, **fields}


def without_seconds(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "worker_seconds"}


def test_what_counts(tmp_path: Path) -> None:
    with Simulator(tokens=6) as ollama, Hermes(ollama.url, config(tmp_path)) as hermes:
        eventually(lambda: hermes.staffed("gemma"))
        port, expected = hermes.port, [0, 0]

        def note(tokens_in: int, tokens_out: int) -> None:
            expected[0] += tokens_in
            expected[1] += tokens_out

        own = post(port, "/v1/llm/gemma", {"messages": CHAT}).json()["usage"]
        note(own["input_tokens"], own["output_tokens"])
        for stream in (True, False):
            last = post(port, "/api/chat", {"model": "gemma3:270m", "messages": CHAT, "stream": stream}).records()[-1]
            note(last["prompt_eval_count"], last["eval_count"])
        last = post(port, "/v1/chat/completions", {"model": "gemma", "messages": CHAT}).json()["usage"]
        note(last["prompt_tokens"], last["completion_tokens"])
        for path, body in (("/v1/chat/completions", {"messages": CHAT}), ("/v1/completions", {"prompt": "x"})):
            assert post(port, path, {"model": "gemma", "stream": True, "stream_options": {"include_usage": True}, **body}).complete
            note(own["input_tokens"] if "messages" in body else 0, own["output_tokens"])
        found = eventually(lambda: (row := usage(hermes)["gemma"])["requests"] == 6 and row)
        assert expected[1] > 0 and found["output_tokens"] == expected[1] and found["input_tokens"] >= expected[0]
        assert (found["ok"], found["errors"], found["estimated"]) == (6, 0, 0) and found["worker_seconds"] > 0

        assert post(port, "/v1/chat/completions", {"model": "gemma", "messages": CHAT, "stream": True}).complete     # did not ask for its usage
        guessed = eventually(lambda: (row := usage(hermes)["gemma"])["requests"] == 7 and row)
        assert guessed["estimated"] == 1 and guessed["output_tokens"] - found["output_tokens"] in range(6, 9)
        assert guessed["input_tokens"] > found["input_tokens"]

        assert post(port, "/api/chat", {"model": "all-minilm", "messages": CHAT}).status == 400                      # Ollama's refusal
        assert post(port, "/api/chat", {"model": "nothere", "messages": CHAT}).status == 404
        assert post(port, "/api/show", {"model": "gemma3:270m"}).status == 200
        assert all(get(port, path).status == 200 for path in ("/api/tags", "/v1/models", "/v1/models/gemma3:270m", "/v1/status", "/v1/usage"))
        assert eventually(lambda: (every := usage(hermes)).get("all-minilm") and every).keys() == {"gemma", "all-minilm"}
        assert without_seconds(usage(hermes)["all-minilm"]) == told(requests=1)


def test_whoever_leaves_has_used_what_came(tmp_path: Path) -> None:
    with Simulator(tokens=500, token_interval=0.01) as ollama, Hermes(ollama.url, config(tmp_path)) as hermes:
        with Client(hermes.port) as client:
            client.send("POST", "/api/chat", {"model": "gemma", "messages": CHAT})
            while client.buffer.count(b"}\n") < 5:
                client.more()
        row = eventually(lambda: usage(hermes).get("gemma"))
        assert (row["requests"], row["ok"], row["errors"], row["estimated"]) == (1, 0, 0, 1)
        assert 5 <= row["output_tokens"] < 500 and row["input_tokens"] > 0 and row["worker_seconds"] > 0.03


def test_over_a_stop_and_a_kill(tmp_path: Path) -> None:
    with Simulator(tokens=6, parallel=8) as ollama:
        with Hermes(ollama.url, config(tmp_path)) as hermes:
            in_threads(32, lambda number: post(hermes.port, "/api/chat", {"model": "gemma", "messages": CHAT}).complete)
            before = eventually(lambda: (row := usage(hermes)["gemma"])["requests"] == 32 and row)
            hermes.signal(signal.SIGTERM)
            assert hermes.wait() == 0
        assert [path.name for path in tmp_path.iterdir()] == ["usage.sqlite3"]
        with Hermes(ollama.url, config(tmp_path)) as hermes:
            assert usage(hermes)["gemma"] == before
            assert post(hermes.port, "/api/chat", {"model": "all-minilm", "messages": CHAT}).status == 400
            file, journal = tmp_path / "usage.sqlite3", tmp_path / "usage.sqlite3-journal"
            eventually(lambda: b"all-minilm" in file.read_bytes() and not journal.read_bytes()[:8].strip(b"\0"), what="writing")
            hermes.process.kill()
            hermes.wait()
        with Hermes(ollama.url, config(tmp_path)) as hermes:
            assert usage(hermes)["gemma"] == before and usage(hermes)["all-minilm"]["requests"] == 1


def run(folder: Path) -> subprocess.CompletedProcess:
    """A Hermes that is not expected to start."""
    environ = {**os.environ, "HERMES_SERVER_LISTEN": "127.0.0.1:0", "HERMES_SERVER_STATE_DIR": str(folder)}
    return subprocess.run([sys.executable, "-m", "hermes", "serve"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False, env=environ)


def test_one_folder_has_one_hermes(tmp_path: Path) -> None:
    with Simulator() as ollama, Hermes(ollama.url, config(tmp_path)):
        second = run(tmp_path)
        assert second.returncode == 3 and "cannot keep the usage" in second.stderr and "locked" in second.stderr


def test_what_cannot_start(tmp_path: Path) -> None:
    missing = run(tmp_path / "missing")
    assert missing.returncode == 78 and "HERMES_SERVER_STATE_DIR" in missing.stderr and "no such folder" in missing.stderr
    (tmp_path / "usage.sqlite3").write_bytes(b"notes of mine" * 100)
    damaged = run(tmp_path)
    assert damaged.returncode == 3 and "not a database" in damaged.stderr and "Traceback" not in damaged.stderr


def test_nothing_is_kept_without_a_folder() -> None:
    with Simulator(tokens=3) as ollama, Hermes(ollama.url, MODELS, measured=True) as hermes:        # coverage itself loads sqlite
        assert post(hermes.port, "/api/chat", {"model": "gemma", "messages": CHAT}).complete
        assert eventually(lambda: usage(hermes).get("gemma"))["output_tokens"] == 3
        assert not [name for name in Path(f"/proc/{hermes.pid}/map_files").iterdir() if "sqlite" in str(name.readlink())]
        assert get(hermes.port, "/v1/usage?days=0").status == 400 and list(get(hermes.port, "/v1/usage?days=0").json()) == ["error"]
        assert get(hermes.port, "/v1/usage", "HEAD").status == 200


def test_an_outsider_can_read_the_file_when_hermes_rests(tmp_path: Path) -> None:
    with Simulator(tokens=3) as ollama, Hermes(ollama.url, config(tmp_path)) as hermes:
        assert post(hermes.port, "/api/chat", {"model": "gemma", "messages": CHAT}).complete
    connection = sqlite3.connect(tmp_path / "usage.sqlite3")
    assert connection.execute("SELECT model, requests, output_tokens FROM usage").fetchall() == [("gemma", 1, 3)]
    connection.close()
