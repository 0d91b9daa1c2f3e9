"""Clients and their keys, with a real Hermes: who is let in, what the others are told, and that no key is ever seen again."""

import base64
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hermes.simulator import Simulator
from tests.harness import ROOT, Client, Hermes, Reply, cmdline, eventually, get, in_threads, post

ALICE, BOB, CAROL = "hk-alice-0123456789abcdef", "hk-bob-0123456789abcdef", "hk-carol-0123456789abcdef"
MODELS = '[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 2\n'
LIMIT = 50                      # of carol's requests in a minute


def table(name: str, key: str, more: str = "") -> str:
    return f'[clients.{name}]\nkey_sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n{more}'


CLIENTS = (table("alice", ALICE, "manage = true\n") + table("bob", BOB, 'models = ["m"]\n')
           + table("carol", CAROL, f"requests_per_minute = {LIMIT}\n"))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


def ask(hermes: Hermes, lines: str, path: str = "/api/generate", source: str = "127.0.0.1") -> Reply:
    """A request from an address of its own, whose body does not come: who has no key is not waited for."""
    with Client(hermes.port) as client:
        client.sock.close()
        client.sock = socket.create_connection(("127.0.0.1", hermes.port), 60, source_address=(source, 0))
        return client.send_raw(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n{lines}\r\n".encode("latin-1")).reply()


def generate(hermes: Hermes, key: str, model: str = "m") -> Reply:
    return post(hermes.port, "/api/generate", {"model": model, "prompt": "x", "stream": False}, **bearer(key))


@pytest.fixture(scope="module")
def ollama():
    with Simulator() as upstream:
        yield upstream


def test_every_form_of_the_right_key(ollama: Simulator) -> None:
    forms = [bearer(ALICE), {"x_api_key": ALICE}, {"Authorization": basic(f"u:{ALICE}")}, {"Authorization": basic(f"{ALICE}:")},
             {**bearer(ALICE), "x_api_key": ALICE}]
    with Hermes(ollama.url, MODELS + CLIENTS) as hermes:
        for form in forms:
            assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}, **form).status == 200
        assert get(hermes.port, "/v1/status", **bearer(BOB)).status == 200 and get(hermes.port, "/v1/status").status == 401
        assert get(hermes.port, "/livez").status == get(hermes.port, "/readyz").status == 200
        eventually(lambda: sum("client=alice " in line for line in hermes.lines) == len(forms))


WRONG = ["", "Authorization: Bearer\r\n", "Authorization: Bearer hk-wrong\r\n", f"Authorization: Bearer {ALICE[:-1]}\r\n", f"Authorization: {ALICE}\r\n",
         "Authorization: Bearer \xe9\xff\r\n", "Authorization: Basic !!\r\n", f"Authorization: {basic('u:wrong')}\r\n", f"x-api-key: {'k' * 8000}\r\n",
         f"Authorization: Bearer {ALICE}\r\n" * 2, f"x-api-key: {ALICE}\r\n" * 2, f"Authorization: Bearer {ALICE}\r\nx-api-key: {BOB}\r\n"]


def test_every_wrong_form_is_the_same_answer_to_the_byte(ollama: Simulator) -> None:
    """E7 of the acceptance table (reliability.md §5): missing, wrong, the beginning of a right one, not ASCII, 8 kB, twice, two."""
    with Hermes(ollama.url, MODELS + CLIENTS) as hermes:
        before = len(ollama.requests)
        for path in ("/api/generate", "/v1/chat/completions", "/v1/llm/m", "/nothing/at/all"):
            answers = set()
            for number, lines in enumerate(WRONG):
                reply = ask(hermes, lines, path, f"127.0.1.{number + 1}")
                assert (reply.status, reply.complete, reply.headers["www-authenticate"]) == (401, True, "Bearer")
                answers.add((re.sub(rb"(Date|X-Request-ID): [^\r]*", b"", reply.raw), reply.body))
            assert len(answers) == 1
        assert len(ollama.requests) == before, "Ollama did not hear of it"
        eventually(lambda: hermes.line("path=/nothing/at/all client=127.0.1.1 "))


def test_ten_wrong_keys_and_the_address_is_out(ollama: Simulator) -> None:
    with Hermes(ollama.url, MODELS + CLIENTS) as hermes:
        wrong, right = (f"Authorization: Bearer {key}\r\n" for key in ("hk-wrong", ALICE))
        assert [ask(hermes, wrong, source="127.0.2.1").status for _ in range(12)] == [401] * 10 + [429] * 2
        locked = ask(hermes, right, source="127.0.2.1")
        assert locked.status == 429 and 1 <= int(locked.headers["retry-after"]) <= 59
        assert generate(hermes, ALICE).status == 200, "another address"
        eventually(lambda: hermes.line("locked out for the rest of the minute address=127.0.2.1"))
        assert get(hermes.port, "/v1/status", **bearer(ALICE)).json()["totals"]["errors"] == 0


def test_sixty_four_threads_never_get_one_more_than_the_limit(ollama: Simulator) -> None:
    with Hermes(ollama.url, MODELS + CLIENTS) as hermes:
        replies = in_threads(64, lambda _: [get(hermes.port, "/api/version", **bearer(CAROL)) for _ in range(2)])
        statuses = [reply.status for pair in replies for reply in pair]
        assert statuses.count(200) == LIMIT and statuses.count(429) == 128 - LIMIT
        assert sorted(int(re.match(r'"default";r=(\d+);t=', reply.headers["ratelimit"])[1]) for pair in replies for reply in pair if reply.status == 200) == list(range(LIMIT))
        refused = ask(hermes, f"x-api-key: {CAROL}\r\n")
        assert refused.status == 429 and 1 <= int(refused.headers["retry-after"]) <= 59, "before the body"
        assert refused.headers["ratelimit-policy"] == f'"default";q={LIMIT};w=60' and refused.headers["ratelimit"].startswith('"default";r=0;t=')
        streamed = generate(hermes, ALICE)
        assert streamed.status == 200 and "ratelimit" not in streamed.headers
        totals = get(hermes.port, "/v1/status", **bearer(CAROL)).json()["totals"]
        assert (totals["rejected"], totals["errors"]) == (128 - LIMIT + 1, 0)


def test_models_and_pulls_are_for_those_who_may(ollama: Simulator) -> None:
    with Hermes(ollama.url, MODELS + CLIENTS) as hermes:
        assert generate(hermes, BOB).status == generate(hermes, BOB, "smollm2:135m").status == 200, "by both names"
        before = len(ollama.requests)
        bodies = {generate(hermes, BOB, model).body for model in ("gemma3:270m", "no-such-model")}
        bodies |= {post(hermes.port, path, {"model": "gemma3:270m"}, **bearer(BOB)).body for path in ("/api/show", "/v1/llm/m/pull")}
        assert bodies == {b'{"error":"this client may not do that"}'}, "whether there is such a model is not told"
        assert get(hermes.port, "/v1/models/gemma3:270m", **bearer(BOB)).json()["error"]["type"] == "permission_error"
        assert len(ollama.requests) == before
        assert post(hermes.port, "/v1/llm/smollm2:135m/pull", {"stream": False}, **bearer(ALICE)).status == 200
        assert generate(hermes, ALICE, "gemma3:270m").status == 200


def test_no_key_is_ever_seen_again(ollama: Simulator) -> None:
    """E9 of the acceptance table: right ones, wrong ones, the ones that came by mistake, and what Ollama was told: in no log line, answer, command
    line, worker's environment, or what `check` and `status` print."""
    secrets = [ALICE, BOB, CAROL, "hk-wrong-secret", "hk-pasted-secret"]
    secrets += [base64.b64encode(f"u:{secret}".encode()).decode() for secret in secrets] + [hashlib.sha256(key.encode()).hexdigest() for key in secrets]
    seen: list[bytes] = []
    config = "[log]\nlevel = \"debug\"\n" + MODELS + CLIENTS
    with Hermes(ollama.url, config) as hermes:
        for printed in (run("check", "--config", str(hermes.config)), run("status", "--url", f"http://127.0.0.1:{hermes.port}", HERMES_KEY=BOB)):
            assert printed.returncode == 0
            seen += [printed.stdout.encode(), printed.stderr.encode()]
        for key in (ALICE, BOB, CAROL, "hk-wrong-secret"):
            for fields in (bearer(key), {"x_api_key": key}, {"Authorization": basic(f"u:{key}")}):
                for reply in (post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}, **fields), get(hermes.port, "/v1/status", **fields),
                              post(hermes.port, "/v1/llm/m", {"prompt": 3}, **fields), get(hermes.port, "/none", **fields), get(hermes.port, "/v1/usage", **fields)):
                    seen += [reply.raw, reply.body]
        hermes.write_config(config + '[clients.dave]\nkey_sha256 = "hk-pasted-secret"\n')
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("not reloaded") and hermes.line("the key itself"))
        for pid in (hermes.pid, *eventually(hermes.children, what="workers")):
            seen += [cmdline(pid), Path(f"/proc/{pid}/environ").read_bytes()]
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0
        seen += [line.encode() for line in hermes.lines] + [repr((request.path, request.headers, request.body)).encode() for request in ollama.requests]
    assert len(seen) > 100 and any(b"client=alice" in one for one in seen)
    assert not [secret for secret in secrets for one in seen if secret.encode() in one]


def test_a_reload_changes_who_may_come_in(ollama: Simulator) -> None:
    with Hermes(ollama.url, MODELS + table("alice", ALICE)) as hermes:
        assert generate(hermes, BOB).status == 401
        hermes.write_config(MODELS + table("bob", BOB))
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("configuration reloaded"))
        assert generate(hermes, BOB).status == 200 and generate(hermes, ALICE).status == 401


# -- who may listen to the network. What listens on 0.0.0.0 here does so on a free port, for as long as the test takes.


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HERMES_", "OLLAMA_"))}
    return subprocess.run([sys.executable, "-m", "hermes", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=30, env=clean | environ, check=False)


@pytest.mark.parametrize("command", ["serve", "check"])
def test_an_open_door_is_refused(command: str, tmp_path: Path) -> None:
    path = tmp_path / "hermes.toml"
    path.write_text('[server]\nlisten = "0.0.0.0:0"\n', encoding="utf-8")
    refused = run(command, "--config", str(path))
    assert refused.returncode == 78 and refused.stderr.startswith(f"{path}:2: 'listen' in [server]")
    assert "HERMES_SERVER_OPEN=true" in refused.stderr and "python -m hermes key NAME" in refused.stderr
    assert run("check", "--config", str(path), HERMES_SERVER_OPEN="true").returncode == 0


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
def test_a_client_has_one_address_in_both_families(ollama: Simulator) -> None:
    def command(path: Path) -> list[str]:
        path.write_text(path.read_text(encoding="utf-8").replace("127.0.0.1:0", "[::]:0"), encoding="utf-8")
        return [sys.executable, "-m", "hermes", "serve", "--config", str(path)]
    with Hermes(ollama.url, "open = true\n" + MODELS, command=command) as hermes:
        assert get(hermes.port, "/api/version").status == 200
        eventually(lambda: hermes.line("path=/api/version client=127.0.0.1 "))


def on_the_network(path: Path) -> list[str]:
    path.write_text(path.read_text(encoding="utf-8").replace("127.0.0.1:0", "0.0.0.0:0"), encoding="utf-8")
    return [sys.executable, "-m", "hermes", "serve", "--config", str(path)]


def test_a_reload_does_not_open_the_door(ollama: Simulator) -> None:
    """The new file speaks of loopback, where it would be right; the process still listens to the network."""
    with Hermes(ollama.url, MODELS + table("alice", ALICE), command=on_the_network) as hermes:
        hermes.write_config(MODELS)
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("not reloaded"))
        assert "[server] open" in hermes.line("not reloaded")
        assert generate(hermes, "hk-wrong").status == 401 and generate(hermes, ALICE).status == 200
        hermes.write_config("open = true\n" + MODELS)
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("configuration reloaded"))
        assert generate(hermes, "ollama").status == 200
        assert post(hermes.port, "/v1/llm/m/pull", {"stream": False}).status == 403, "that takes manage, where anybody may come in"
