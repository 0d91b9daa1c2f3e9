"""The commands that ask a running Hermes: the question, what is made of every answer, and the tables."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hermes import cli, remote
from hermes.config import ConfigError
from tests.bench.fronts import free_port

REQUEST = {"id": "req_1", "client": "ann", "class": "normal", "model": "m", "phase": "queued", "position": 2, "seconds": 3.21, "tokens": 0}
MODEL = {"name": "m", "model": "m:latest", "workers": {"max": 2, "idle": 1, "busy": 1}, "queue": {"depth": 3, "limit": 64, "oldest": 1.0}, "closed": None, "paused": False,
         "loaded": True}
STATUS = {"status": "ok", "version": "1", "uptime": 7260.0, "totals": {"running": 1, "queued": 3, "ok": 9},
          "upstream": {"url": "http://o", "up": True, "version": "0.33", "error": None}, "models": [MODEL], "requests": [REQUEST]}


class Front:
    """Answers everything with `status` and `body`."""

    def __init__(self) -> None:
        self.status, self.body, self.heard = 200, json.dumps(STATUS).encode(), []
        front = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                front.heard.append((self.command, self.path, self.headers.get("Authorization")))
                self.send_response(front.status)
                self.send_header("Content-Length", str(len(front.body)))
                self.end_headers()
                self.wfile.write(front.body)

            do_GET = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def say(self, status: int, body: object) -> None:
        self.status, self.body = status, body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.fixture
def front() -> Iterator[Front]:
    made = Front()
    threading.Thread(target=made.server.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def run(front: Front, command: str, request_id: str = "", **environ: str) -> list[str]:
    return list(remote.run(command, front.url, request_id, environ))


def test_the_queue(front: Front) -> None:
    stranger = REQUEST | {"id": None, "client": None, "phase": "streaming", "position": 0, "seconds": 65.0, "tokens": 12}
    front.say(200, STATUS | {"requests": [stranger, REQUEST]})
    assert run(front, "queue") == ["ID     CLIENT  CLASS   MODEL  PHASE      POSITION  TIME   TOKENS",
                                   "-      -       normal  m      streaming  -         1m05s  12",
                                   "req_1  ann     normal  m      queued     2         3.2s   0"]


def test_the_status(front: Front) -> None:
    front.say(200, STATUS | {"models": [MODEL, MODEL | {"name": "other", "loaded": False, "paused": True}, MODEL | {"name": "x", "loaded": None, "closed": "its workers died", "paused": True}]})
    assert run(front, "status") == ["ok  hermes 1  up 2h01m  running 1  queued 3  answered 9", "ollama http://o  up, 0.33",
                                    "MODEL  RUNNING  QUEUED  LOADED", "m      1/2      3/64    yes", "other  1/2      3/64    no      paused",
                                    "x      1/2      3/64    ?       its workers died"]
    front.say(200, STATUS | {"upstream": STATUS["upstream"] | {"up": False, "error": "cannot connect"}, "models": []})
    assert run(front, "status")[1:] == ["ollama http://o  down: cannot connect", "MODEL  RUNNING  QUEUED  LOADED"]


def test_nothing_from_outside_moves_the_cursor(front: Front) -> None:
    evil = "a\x1b[2J\r\nb\u202e\x9b\ud800é"
    front.say(200, STATUS | {"requests": [REQUEST | {"id": evil, "model": evil}], "models": [MODEL | {"name": evil, "closed": evil}],
                             "upstream": STATUS["upstream"] | {"version": evil}})
    said = run(front, "queue") + run(front, "status")
    assert all(line.isprintable() for line in said) and "a?[2J??b???é" in said[1]
    front.say(200, STATUS | {"upstream": STATUS["upstream"] | {"up": False, "error": evil}})
    assert all(line.isprintable() for line in run(front, "status"))
    front.say(404, {"error": evil})
    with pytest.raises(remote.Refused) as caught:
        run(front, "queue")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0.0s"), (3.21, "3.2s"), (59.94, "59.9s"), (60, "1m00s"), (312.9, "5m12s"), (3599, "59m59s"), (3600, "1h00m"), (7500, "2h05m"),
                                               (86399, "23h59m"), (86400, "1d00h"), (273600, "3d04h")])
def test_durations(seconds: float, text: str) -> None:
    assert remote.duration(seconds) == text


def test_what_is_asked_and_with_which_key(front: Front) -> None:
    run(front, "queue")
    run(front, "status", HERMES_KEY="hk-1")
    assert run(front, "cancel", "a/b c?%2F..#", HERMES_KEY="hk-1") == ["cancelled a/b c?%2F..#"]
    list(remote.run("queue", front.url + "/behind/", "", {}))
    assert front.heard == [("GET", "/v1/status", None), ("GET", "/v1/status", "Bearer hk-1"), ("DELETE", "/v1/requests/a%2Fb%20c%3F%252F..%23", "Bearer hk-1"),
                           ("GET", "/behind/v1/status", None)]


@pytest.mark.parametrize(("status", "body", "text"), [
    (401, {"error": "a valid key is needed"}, "a valid key is needed"), (404, {"error": {"message": "no such thing"}}, "no such thing"), (403, {"error": {"code": 7}}, "7"),
    (500, {}, "500"), (404, b"404 page not found", "does not answer as a Hermes does (status 404)"), (502, b"", "502"), (200, b"<html>", "does not answer as a Hermes does"),
    (200, b"\xff\xfe", "does not answer as a Hermes does"), (500, [1], "does not answer as a Hermes does"), (200, [1], "does not answer as a Hermes does"),
    (200, b"7", "does not answer as a Hermes does"), (200, {}, "does not answer as a Hermes does"), (200, {"models": []}, "does not answer as a Hermes does"),
    (200, b"", "does not answer as a Hermes does"), (200, STATUS | {"models": [1], "requests": [1]}, "does not answer as a Hermes does"),
    (200, b"[" * 100_000, "does not answer as a Hermes does")])
@pytest.mark.parametrize("command", ["status", "queue"])
def test_every_other_answer_is_said_and_no_crash(front: Front, command: str, status: int, body: object, text: str) -> None:
    front.say(status, body)
    with pytest.raises(remote.Refused) as caught:
        run(front, command)
    assert text in str(caught.value)


@pytest.mark.parametrize("url", ["", "://", "ftp://h", "http://", "http:///x", "file:///etc/passwd", "http://h:port", "http://h:99999", "http://[::1", "http://[x]", "http://h h", "https://h:0/",
                                 "http://\x00", "http://ü..de"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(remote.Refused):
        list(remote.run("queue", url, "", {}))


def test_nobody_listens_or_speaks_tls() -> None:
    port = free_port()
    with pytest.raises(remote.Refused, match=f"no answer from http://127.0.0.1:{port}: "):
        list(remote.run("queue", f"http://127.0.0.1:{port}", "", {}))


def test_https_is_spoken_where_it_is_asked_for(front: Front) -> None:
    with pytest.raises(remote.Refused, match="no answer from https://"):
        list(remote.run("queue", front.url.replace("http", "https"), "", {"HERMES_KEY": "hk-1"}))
    assert not front.heard, "the key did not go out in the clear"


@pytest.mark.parametrize("key", ["hk-secret\n", "hk-secret\r\nX: y", "hk-sécrèt-ключ"])
def test_a_key_that_cannot_be_sent_is_not_shown(front: Front, key: str) -> None:
    with pytest.raises(remote.Refused) as caught:
        run(front, "queue", HERMES_KEY=key)
    assert "HERMES_KEY" in str(caught.value) and "hk-" not in str(caught.value) and not front.heard


@pytest.mark.parametrize(("environ", "url"), [
    ({"HERMES_SERVER_LISTEN": "127.0.0.1:1234"}, "http://127.0.0.1:1234"), ({"HERMES_SERVER_LISTEN": "[::1]:1234"}, "http://[::1]:1234"),
    ({"HERMES_SERVER_LISTEN": "0.0.0.0:1234", "HERMES_SERVER_OPEN": "true"}, "http://127.0.0.1:1234"), ({"HERMES_SERVER_LISTEN": "[::]:1234", "HERMES_SERVER_OPEN": "true"}, "http://127.0.0.1:1234")])
def test_without_a_url_it_is_where_the_configuration_says(environ: dict[str, str], url: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert remote.base_url(None, environ) == remote.base_url("", environ) == url
    assert remote.base_url("h:1", environ) == "http://h:1" and remote.base_url("https://h", environ) == "https://h"
    with pytest.raises(ConfigError):
        remote.base_url(None, {"HERMES_SERVER_LISTEN": "x"})


def test_exit_codes(front: Front, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_KEY", "hk-1")
    assert cli.main(["queue", "--url", front.url]) == cli.OK and "req_1" in capsys.readouterr().out
    assert cli.main(["cancel", "--url", front.url, "--", "-odd"]) == cli.OK and capsys.readouterr().out == "cancelled -odd\n"
    front.say(404, {"error": "no such request is waiting or running"})
    assert cli.main(["cancel", "--url", front.url, "r"]) == cli.FAILED
    assert capsys.readouterr().err == "hermes: no such request is waiting or running\n"
    monkeypatch.setenv("HERMES_SERVER_LISTEN", "x")
    assert cli.main(["status"]) == cli.BAD_CONFIG and "HERMES_SERVER_LISTEN" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        cli.main(["cancel"])
    assert caught.value.code == cli.BAD_COMMAND and {heard[2] for heard in front.heard} == {"Bearer hk-1"}


@pytest.mark.parametrize(("environ", "url"), [
    ({"HERMES_ADMIN_LISTEN": "unix:/run/a.sock"}, "unix:/run/a.sock"), ({"HERMES_ADMIN_LISTEN": "[::1]:1"}, "http://[::1]:1"),
    ({"HERMES_ADMIN_LISTEN": "127.0.0.1:2", "HERMES_SERVER_LISTEN": "127.0.0.1:3"}, "http://127.0.0.1:2")])
def test_where_managing_is_done_if_that_is_elsewhere(environ: dict[str, str], url: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert remote.base_url(None, environ) == url and remote.base_url("unix:/b.sock", environ) == "unix:/b.sock"


def test_with_a_certificate_it_is_https(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "process" / "tls"
    shutil.copyfile(folder / "key.pem", tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    environ = {"HERMES_SERVER_TLS_CERT": str(folder / "cert.pem"), "HERMES_SERVER_TLS_KEY": "key.pem", "HERMES_SERVER_LISTEN": "127.0.0.1:3"}
    assert remote.base_url(None, environ) == "https://127.0.0.1:3"
    assert remote.base_url(None, environ | {"HERMES_ADMIN_LISTEN": "127.0.0.1:4"}) == "https://127.0.0.1:4"
    assert remote.base_url(None, environ | {"HERMES_ADMIN_LISTEN": "unix:/a"}) == "unix:/a"


def test_a_file_of_certificates_that_is_none() -> None:
    with pytest.raises(remote.Refused, match="no answer from https://h: no certificates can be read from /nowhere: No such file"):
        remote.run("status", "https://h", "", {}, ca="/nowhere")


@pytest.mark.parametrize("url", ["unix:", "unix:/nowhere", "unix:" + "/a" * 100])
def test_sockets_that_are_none(url: str) -> None:
    with pytest.raises(remote.Refused, match="no answer from unix:"):
        remote.run("status", url, "", {})
