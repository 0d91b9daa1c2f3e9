"""The demo's three lines work as printed, and Ctrl-C ends everything; so does the stand-in alone."""

import os
import re
import shlex
import signal
import subprocess
import sys

from tests.harness import ROOT, Client, eventually, get

CURL = re.compile(r"^  curl (.*)$", re.MULTILINE)


def as_request(line: str) -> tuple[int, str, str, bytes]:
    """Port, method, path and body of a curl line: what curl makes of the few options the demo uses."""
    method, body, url = "GET", b"", ""
    words = iter(shlex.split(line))
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-d":
            method, body = "POST", next(words).encode()
        elif word != "-N":
            url = word
    _, port, path = re.fullmatch(r"http://([\d.]+):(\d+)(/.*)", url).groups()
    return int(port), method, path, body


def test_the_three_lines_work_as_printed_and_ctrl_c_ends_both() -> None:
    environment = {**os.environ, "HERMES_SERVER_CLIENTS_FILE": "/nonexistent", "HERMES_SERVER_LISTEN": "0.0.0.0:1"}     # meant for another Hermes
    with subprocess.Popen([sys.executable, "-m", "hermes", "demo"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=environment, start_new_session=True) as demo:
        try:
            text = ""
            while len(CURL.findall(text)) < 3:
                line = demo.stdout.readline()
                assert line, demo.stderr.read()
                text += line
            stream, status, pull = (as_request(line) for line in CURL.findall(text))
            replies = []
            for port, method, path, body in (stream, status, pull):
                eventually(lambda port=port: listening(port))
                with Client(port) as client:
                    replies.append(client.send(method, path, body).reply())
            assert [(reply.status, reply.complete) for reply in replies] == [(200, True)] * 3
            assert replies[0].records()[-1]["done"] is True and replies[0].records()[-1]["usage"]["output_tokens"] > 0
            assert replies[1].json()["status"] == "ok"
            assert replies[2].records()[-1] == {"status": "ready"} and len(replies[2].records()) > 5
            os.killpg(demo.pid, signal.SIGINT)
            assert demo.wait(20) == 0
            assert "Traceback" not in demo.stderr.read()
        finally:
            demo.kill()


def listening(port: int) -> bool:
    try:
        return get(port, "/livez").status == 200
    except ConnectionRefusedError:
        return False


def test_the_stand_in_alone() -> None:
    with subprocess.Popen([sys.executable, "-m", "hermes", "simulator", "--port", "0", "--load-time", "0"], cwd=ROOT, stderr=subprocess.PIPE,
                          text=True) as stand_in:
        try:
            port = int(re.search(r"listening on http://127\.0\.0\.1:(\d+)", stand_in.stderr.readline())[1])
            assert get(port, "/api/version").json()["version"]
            stand_in.send_signal(signal.SIGTERM)
            assert stand_in.wait(20) == 0 and "Traceback" not in stand_in.stderr.read()
        finally:
            stand_in.kill()
