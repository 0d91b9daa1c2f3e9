"""The log as JSON: each event one valid line of at most 4 KiB, whatever clients send, with no key and no prompt in it (reliability.md §5, B17)."""

import hashlib
import json
import signal
from collections import Counter

from hermes.simulator import Simulator
from tests.harness import Client, Hermes, eventually, get

MODEL = "smollm2:135m"
KEY, WRONG, MARK = "hk-qpwoeiruty", "hk-zmxncbvlak", "zqxjkvb"
CONFIG = f'[log]\nlevel = "debug"\n[models.m]\nmodel = "{MODEL}"\n[clients.ann]\nkey_sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n'
NASTY = ["\x1b[2J\x1b]0;evil\x07", 'a\r\n{"level":"error","message":"forged"}', "\x85", "\u2028\u2029", "\x00", "\x7f", "\u202egnp.exe", "\ud800", "x" * 3000, "😀" * 700,
         "\"'\\", "a=b status=200 code=ok", '" message="forged', "%s %d {}", "\\u0022", "é日本"]


def event_of(line: str) -> dict:
    """As a strict reader has it."""
    def once(pairs: list[tuple[str, object]]) -> dict:
        assert len(dict(pairs)) == len(pairs), line
        return dict(pairs)

    assert len(line.encode()) < 4096 and line.isascii() and line.isprintable(), line
    return json.loads(line, object_pairs_hook=once)


class Talk:
    """Requests of one client each, numbered by their ids as far as they have one of ours."""

    def __init__(self, port: int):
        self.port, self.sent, self.statuses = port, 0, {}

    def say(self, head: bytes, body: bytes = b"", *, key: str = KEY, given_id: bytes = b"") -> int:
        self.sent += 1
        fields = (b"Host: localhost", f"Authorization: Bearer {key}".encode(), b"X-Request-ID: " + (given_id or b"n-%d" % self.sent), b"Content-Length: %d" % len(body), b"Connection: close")
        with Client(self.port) as client:
            status = client.send_raw(head.replace(b"\r\n", b"\r\n" + b"\r\n".join(fields) + b"\r\n", 1) + b"\r\n" + body).reply().status
        assert status, head
        if not given_id:
            self.statuses[f"n-{self.sent}"] = status
        return status

    def ask(self, path: bytes, body: dict | bytes) -> int:
        return self.say(b"POST %b HTTP/1.1\r\n" % path, body if isinstance(body, bytes) else json.dumps(body).encode())


def be_nasty(talk: Talk) -> None:
    for nasty in NASTY:
        data = nasty.encode("utf-8", "surrogatepass")
        for part in (data, b"".join(b"%%%02x" % byte for byte in data)):
            talk.say(b"GET /%b HTTP/1.1\r\n" % part)
            talk.say(b"GET /v1/models/%b HTTP/1.1\r\n" % part)
            talk.say(b"GET /nope HTTP/1.1\r\nUser-Agent: %b\r\n" % part)
            talk.say(b"GET /nope HTTP/1.1\r\nX-%b: x\r\n" % part)
            talk.say(b"GET /nope HTTP/1.1\r\n", given_id=part)
        for path in (b"/api/generate", b"/v1/chat/completions", b"/v1/llm/m"):
            talk.ask(path, {"model": nasty, "prompt": MARK, "messages": [{"role": "user", "content": MARK}], "stream": False})
            talk.ask(path, b'{"prompt":"' + MARK.encode() + b'","model":"' + data.replace(b'"', b"") + b'\xff\xc0"}')


def test_b17_every_line_is_json() -> None:
    with Simulator(tokens=2) as ollama, Hermes(ollama.url, CONFIG, HERMES_LOG_FORMAT="json") as hermes:
        talk = Talk(hermes.port)
        be_nasty(talk)
        assert talk.say(b"GET /api/tags HTTP/1.1\r\n", key=WRONG, given_id=b"wrong") == 401
        assert talk.say(b"POST /api/generate HTTP/1.1\r\n", json.dumps({"model": "m", "prompt": MARK}).encode(), given_id=b"right") == 200
        assert talk.say(b"GET http://other.example/api/tags HTTP/1.1\r\n", given_id=b"twice") == 400
        assert talk.say(b"GET /a=b;c=%22 HTTP/1.1\r\n", given_id=b'"=\\') == 404
        eventually(lambda: sum('"message":"request"' in line for line in list(hermes.lines)) >= talk.sent, what=f"{talk.sent} requests")
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0
        events = [event_of(line) for line in hermes.lines]
        listening = events[0]
        assert listening["message"] == "listening" and listening["url"].endswith(f":{hermes.port}") and listening["pid"] == hermes.pid and listening["models"] == 1
        assert {"time", "level", "message"} <= set.intersection(*(set(event) for event in events))
        assert not [line for line in hermes.lines for secret in (KEY, WRONG, MARK) if secret in line]
        assert {event["message"] for event in events} <= {"listening", "request", "stopping", "stopped", "worker left"}, "the rest would be forged"

        requests = [event for event in events if event["message"] == "request"]
        assert len(requests) == talk.sent, "one event for each, and none that nobody has sent"
        said = Counter(event["request_id"] for event in requests if event["request_id"].startswith("n-"))
        assert set(said.values()) == {1} and set(said) <= set(talk.statuses)
        assert not [event for event in requests if talk.statuses.get(event["request_id"], event["status"]) != event["status"]]
        by_id = {event["request_id"]: event for event in requests}
        assert (by_id["wrong"]["outcome"], by_id["wrong"]["code"], by_id["wrong"]["client"]) == ("refused", "unauthorized", "127.0.0.1")
        assert (by_id["right"]["outcome"], by_id["right"]["client"], by_id["right"]["model"]) == ("ok", "ann", "m") and "code" not in by_id["right"]
        assert (by_id['"=\\']["path"], by_id['"=\\']["code"]) == ("/a=b;c=%22", "not_found")
        assert not [event for event in requests if "code" in event and event["outcome"] == "ok"]
        nameless = [event for event in requests if "code" not in event and event["outcome"] != "ok"]
        assert {event["path"].rpartition("/")[0] for event in nameless} <= {"/v1/models"} and len(nameless) < talk.sent / 4, "what Ollama has refused"


def test_a_reload_changes_the_format() -> None:
    """`auto`, where stderr is a pipe, is JSON."""
    with Simulator() as ollama, Hermes(ollama.url, '[log]\nformat = "auto"\n') as hermes:
        hermes.write_config('[log]\nformat = "logfmt"\n')
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("configuration reloaded"))
        assert event_of(hermes.lines[0])["message"] == "listening"
        assert "Z level=info configuration reloaded config=" in hermes.line("configuration reloaded")
        assert get(hermes.port, "/a=b", X_Request_ID="mine").status == 404
        line = eventually(lambda: hermes.line("request_id=mine"))
        assert ' path="/a=b" client=' in line and " status=404 outcome=refused code=not_found queue_s=" in line
