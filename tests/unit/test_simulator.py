"""The stand-in's scheduler, its faults, and what it notices. Tests wait for facts; no test sleeps."""

import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hermes.simulator import Fault, SimModel, SimRequest, Simulator, expected_text
from hermes.simulator.client import Client
from hermes.simulator.ledger import Ledger

LONG = 60.0  # Longer than any test takes: what has to wait so long waits until it is told to stop.
A, B = "smollm2:135m", "gemma3:270m"


class Call:
    """One request on a connection of its own, sent and not yet read."""

    def __init__(self, sim: Simulator, path: str = "/api/generate", **fields: object) -> None:
        fields = {"model": A, "prompt": "hello"} | fields
        body = json.dumps(fields).encode("utf-8")
        self.socket = socket.create_connection(("127.0.0.1", sim.port), timeout=5)
        self.socket.sendall(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body))
        self.received = b""

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.received:
            data = self.socket.recv(65536)
            assert data, self.received
            self.received += data
        return self.received

    def read_all(self) -> bytes:
        """To the proper end of the answer; the connection stays open."""
        head, _, _ = self.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
        if b"chunked" in head:
            return self.read_until(b"\r\n0\r\n\r\n")
        size = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        while len(self.received) < len(head) + 4 + size:
            self.received += self.socket.recv(65536)
        return self.received

    def read_to_close(self) -> bytes:
        while data := self.socket.recv(65536):
            self.received += data
        return self.received

    def leave(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Call":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@contextmanager
def stand_in(**settings: object) -> Iterator[Simulator]:
    with Simulator(**settings) as sim:
        yield sim


def arrived(sim: Simulator, count: int) -> None:
    assert sim.wait_for(lambda: len(sim.requests) == count)


def in_phase(sim: Simulator, index: int, phase: str) -> None:
    assert sim.wait_for(lambda: len(sim.requests) > index and sim.requests[index].phase == phase)


def body_of(answer: bytes) -> bytes:
    """The body without chunk framing."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return rest
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2:]
    return body


def lines_of(answer: bytes) -> list[dict]:
    return [json.loads(line) for line in body_of(answer).split(b"\n") if line]


# --- answers


def test_the_text_depends_on_the_prompt_alone() -> None:
    with stand_in(tokens=40) as sim, Call(sim) as first, Call(sim, stream=False) as second:
        streamed = "".join(line["response"] for line in lines_of(first.read_all()))
        whole = json.loads(body_of(second.read_all()))["response"]
    assert streamed == whole == expected_text("hello", 40)


def test_json_is_escaped_as_go_does() -> None:
    with stand_in(tokens=200) as sim, Call(sim) as call:
        body = body_of(call.read_all())
    assert b"\\u003cb\\u003e" in body and b"\\u0026" in body and "🌍".encode() in body
    assert not set(b"<>&") & set(body)


def test_sse_says_the_same_as_ndjson() -> None:
    with stand_in() as sim, Call(sim, "/v1/completions", stream=True, max_tokens=5) as call:
        events = body_of(call.read_all()).decode("utf-8").removesuffix("data: [DONE]\n\n").split("\n\n")[:-1]
    text = "".join(json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events)
    assert text == expected_text("hello", 5)


def test_a_limit_is_reached_and_said() -> None:
    with stand_in() as sim, Call(sim, options={"num_predict": 3}) as call:
        last = lines_of(call.read_all())[-1]
    assert (last["done_reason"], last["eval_count"]) == ("length", 3)


def test_the_name_is_echoed_and_recorded_canonically() -> None:
    with stand_in() as sim, Call(sim, model="Library/SMOLLM2:135m", stream=False) as call:
        assert json.loads(body_of(call.read_all()))["model"] == "Library/SMOLLM2:135m"
        assert sim.requests[0].model == A


@pytest.mark.parametrize("name", ["smollm2:", "/smollm2", "a/b/c/d", "smol lm2", "smollm2@sha256:abc"])
def test_malformed_names_are_refused(name: str) -> None:
    with stand_in() as sim, Call(sim, model=name) as call:
        assert b'{"error":"invalid model name"}' in call.read_all()


def test_keys_fold_and_what_follows_the_json_is_ignored() -> None:
    with stand_in() as sim, Call(sim) as call:
        call.read_all()
        body = b'{"MODEL": "smollm2:135m", "Prompt": "x", "stream": false} and more'
        call.socket.sendall(b"POST /api/generate HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        call.received = b""
        assert json.loads(body_of(call.read_all()))["response"] == expected_text("x", 16)
        assert sim.connections == 1 and sim.requests[1].connection == sim.requests[0].connection


def test_a_chunked_request_body_is_read() -> None:
    with stand_in() as sim, Call(sim) as call:
        call.read_all()
        call.received = b""
        call.socket.sendall(b"POST /api/show HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                            b"8\r\n{\"name\":\r\n10\r\n\"gemma3:270m\"  }\r\n0\r\n\r\n")
        assert b"200 OK" in call.read_all()
        assert sim.requests[1].body == b'{"name":"gemma3:270m"  }'


def test_http_1_0_gets_no_framing() -> None:
    with stand_in(tokens=2) as sim, socket.create_connection(("127.0.0.1", sim.port), timeout=5) as client:
        body = b'{"model": "smollm2:135m", "prompt": "x"}'
        client.sendall(b"POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n") and b"chunked" not in answer
    assert [line["done"] for line in lines_of(answer)] == [False, False, True]


def test_what_is_no_http_gets_a_400() -> None:
    with stand_in() as sim, socket.create_connection(("127.0.0.1", sim.port), timeout=5) as client:
        client.sendall(b"hello\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_bodies_are_kept_without_framing() -> None:
    with stand_in(keep_bodies=True) as sim, Call(sim) as call:
        answer = call.read_all()
        assert sim.requests[0].sent == body_of(answer)


def test_a_pull_installs() -> None:
    with stand_in(pull_steps=3) as sim:
        with Call(sim, "/api/pull", model="new") as call:
            statuses = [line["status"] for line in lines_of(call.read_all())]
        assert (statuses[0], statuses[-1], len(statuses)) == ("pulling manifest", "success", 7)
        with Call(sim, model="new", stream=False) as call:
            assert b"200 OK" in call.read_all()


def test_a_pull_of_nothing_fails_inside_the_200() -> None:
    with stand_in() as sim, Call(sim, "/api/pull", model="missing") as call:
        assert lines_of(call.read_all())[-1] == {"error": "pull model manifest: file does not exist"}


# --- the scheduler


def test_slots_are_given_in_order() -> None:
    with stand_in(parallel=1) as sim, Call(sim, prompt="@@prompt_time=60@@") as first:
        in_phase(sim, 0, "prefill")
        with Call(sim, prompt="second") as second:
            in_phase(sim, 1, "queued")
            with Call(sim, prompt="third"):
                in_phase(sim, 2, "queued")
                assert sim.high_water(A) == 3
                first.leave()
                second.read_all()
                assert sim.wait_for(lambda: sim.requests[2].phase == "done")
    prefill = {record.prompt: record.first_byte for record in sim.requests}
    assert prefill["second"] < prefill["third"]


def test_parallel_slots_run_together() -> None:
    with stand_in(parallel=2, prompt_time=LONG) as sim, Call(sim), Call(sim):
        in_phase(sim, 0, "prefill")
        in_phase(sim, 1, "prefill")


def test_an_embedding_model_has_one_slot() -> None:
    def embed() -> Call:
        return Call(sim, "/api/embed", model="all-minilm", input="a")

    with stand_in(parallel=4, prompt_time=LONG) as sim, embed():
        in_phase(sim, 0, "prefill")
        with embed():
            arrived(sim, 2)
            assert sim.requests[1].phase == "queued"


def test_a_loaded_model_passes_a_long_load() -> None:
    models = [SimModel(A), SimModel(B, load_time=LONG)]
    with stand_in(models=models, max_queue=0) as sim, Call(sim) as warm:
        warm.read_all()
        with Call(sim, model=B):
            in_phase(sim, 1, "loading")
            with Call(sim, stream=False) as passing:
                assert b"200 OK" in passing.read_all()
            assert sim.loaded() == [A]


def test_a_full_queue_is_a_503() -> None:
    with stand_in(load_time=LONG, max_queue=1) as sim, Call(sim):
        in_phase(sim, 0, "loading")
        with Call(sim, model=B):
            assert sim.wait_for(lambda: sim.pending == 2)
            with Call(sim, model=B) as refused:
                answer = refused.read_all()
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable")
    assert b'{"error":"server busy, please try again.  maximum pending requests exceeded"}' in answer


def test_leaving_during_the_load_aborts_it_and_the_next_one_starts_again() -> None:
    with stand_in() as sim, Call(sim, prompt="@@load_time=60@@") as first:
        in_phase(sim, 0, "loading")
        with Call(sim, stream=False) as second:
            assert sim.wait_for(lambda: sim.pending == 2)
            assert sim.loaded() == []
            first.leave()
            assert b"200 OK" in second.read_all()
        assert sim.load_starts == {A: 2} and sim.loads == {A: 1}
        assert sim.requests[0].client_left and sim.requests[0].phase == "loading"


def test_the_idle_model_with_the_shortest_keep_alive_is_evicted() -> None:
    models = [SimModel(name) for name in ("one", "two", "three")]
    with stand_in(models=models, max_loaded=2) as sim:
        for name, keep_alive in (("one", "10m"), ("two", "5m"), ("three", None)):
            with Call(sim, model=name, keep_alive=keep_alive, stream=False) as call:
                call.read_all()
        assert sorted(sim.loaded()) == ["one:latest", "three:latest"]


def test_memory_limits_what_is_loaded() -> None:
    models = [SimModel(A, 60), SimModel(B, 50), SimModel("vast", 101)]
    with stand_in(models=models, memory=100) as sim:
        for name in (A, B):
            with Call(sim, model=name, stream=False) as call:
                call.read_all()
            assert sim.loaded() == [name]
        with Call(sim, model="vast") as call:
            assert b"500 Internal Server Error" in call.read_all()


def test_a_busy_model_is_waited_for_and_still_admits() -> None:
    with stand_in(max_loaded=1, parallel=2) as sim, Call(sim, prompt="@@prompt_time=60@@") as busy:
        in_phase(sim, 0, "prefill")
        with Call(sim, model=B, stream=False) as newcomer:
            assert sim.wait_for(lambda: sim.pending == 1)
            with Call(sim, stream=False) as admitted:
                assert b"200 OK" in admitted.read_all()
            assert sim.loaded() == [A] and sim.requests[1].phase == "queued"
            busy.leave()
            assert b"200 OK" in newcomer.read_all()
        assert sim.loaded() == [B]


def test_a_keep_alive_sticks_until_it_runs_out() -> None:
    with stand_in() as sim:
        with Call(sim, keep_alive="24h", stream=False) as call:
            call.read_all()
        with Call(sim, keep_alive=0.05, prompt="", stream=False) as call:
            call.read_all()
        with Call(sim, stream=False) as call:
            call.read_all()
        assert sim.wait_for(lambda: sim.loaded() == [])


def test_load_and_unload_requests() -> None:
    with stand_in() as sim:
        with Call(sim, "/api/chat", prompt=None, keep_alive=-1) as call:
            assert json.loads(body_of(call.read_all()))["done_reason"] == "load"
        assert sim.loaded() == [A]
        with Call(sim, prompt="", keep_alive=0) as call:
            assert json.loads(body_of(call.read_all()))["done_reason"] == "unload"
        assert sim.loaded() == []


def test_another_context_length_is_another_load() -> None:
    with stand_in() as sim:
        for options in ({}, {"num_ctx": 4096, "seed": 7}, {"num_ctx": 8192}, {}):
            with Call(sim, options=options, stream=False) as call:
                call.read_all()
        assert sim.loads == {A: 3}


# --- leaving


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
@pytest.mark.parametrize("phase", ["loading", "prefill", "streaming"])
def test_leaving_is_noticed_in_every_phase(phase: str, how: str) -> None:
    marks = {"loading": "@@load_time=60@@", "prefill": "@@prompt_time=60@@", "streaming": "@@interval=60@@"}
    with stand_in() as sim, Call(sim, prompt=marks[phase]) as call:
        in_phase(sim, 0, phase)
        if how == "half-close":
            call.socket.shutdown(socket.SHUT_WR)
        elif how == "reset":
            call.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how != "half-close":
            call.leave()
        assert sim.wait_for(lambda: sim.requests[0].client_left)
        assert (sim.running(A), sim.requests[0].phase) == (0, phase)
        with Call(sim, stream=False) as after:
            assert b"200 OK" in after.read_all()


@pytest.mark.parametrize("waits_for", ["slot", "load"])
def test_leaving_is_noticed_in_a_queue(waits_for: str) -> None:
    mark = "@@prompt_time=60@@" if waits_for == "slot" else "@@load_time=60@@"
    with stand_in() as sim, Call(sim, prompt=mark) as first:
        in_phase(sim, 0, "prefill" if waits_for == "slot" else "loading")
        with Call(sim) as second:
            arrived(sim, 2)
            second.leave()
            assert sim.wait_for(lambda: sim.requests[1].client_left)
        assert sim.requests[1].phase == "queued" and sim.running(A) == 1
        first.leave()
        with Call(sim, stream=False) as third:
            assert b"200 OK" in third.read_all()


def test_a_reader_that_has_stopped_reading_holds_its_slot_until_it_leaves() -> None:
    with stand_in() as sim, Call(sim, options={"num_predict": 10**9}) as call:
        call.read_until(b"done")
        assert sim.running(A) == 1
        call.leave()
        assert sim.wait_for(lambda: sim.requests[0].client_left)


def test_stopping_ends_every_conversation() -> None:
    with stand_in(prompt_time=LONG) as sim, Call(sim) as call:
        in_phase(sim, 0, "prefill")
        sim.stop()
        assert call.read_to_close() == b""
        assert sim.open_connections == 0


# --- counting


def test_who_left_at_the_same_instant_does_not_count() -> None:
    with stand_in(prompt_time=LONG, parallel=4) as sim:
        for number in range(1, 21):
            with Call(sim) as call:
                arrived(sim, number)
                call.leave()
        assert sim.high_water(A) == 1


def test_the_dead_are_dropped_before_the_living_are_counted() -> None:
    """Straight at the ledger: no handler thread is there to notice first."""
    ledger = Ledger(keep_bodies=False, remember=None)
    pairs = [loopback() for _ in range(2)]
    try:
        for peer, sock in pairs:
            record = SimRequest("POST", "/api/generate", A, "", b"", 0, 0.0, inference=True)
            ledger.arrive(record, Client(sock))
            assert (ledger.running(A), ledger.high_water[A]) == (1, 1)
            peer.close()
        assert [record.client_left for record in ledger.requests] == [True, False]
    finally:
        for _, sock in pairs:
            sock.close()


def loopback() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        return peer, listener.accept()[0]


def test_a_call_is_over_for_whoever_has_read_its_end() -> None:
    with stand_in(tokens=2) as sim:
        for _ in range(50):
            with Call(sim) as call:
                call.read_all()
                assert (sim.running(A), sim.requests[-1].phase) == (0, "done")
        assert sim.high_water(A) == 1 and not any(record.client_left for record in sim.requests)


def test_sixteen_clients_at_full_speed() -> None:
    answers: list[bytes] = []

    def client(sim: Simulator) -> None:
        for _ in range(5):
            with Call(sim, options={"num_predict": 50}) as call:
                answers.append(body_of(call.read_all()))

    with stand_in(parallel=16) as sim:
        threads = [threading.Thread(target=client, args=(sim,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 80 and all(answer.count(b"\n") == 51 for answer in answers)
        assert sim.high_water(A) <= 16 and sim.connections == 80


# --- faults


def faulty(fault: Fault, **fields: object) -> tuple[bytes, bool]:
    """What a client receives, and whether it was reset at the end."""
    with stand_in() as sim:
        sim.script(fault)
        with Call(sim, **fields) as call:
            try:
                return call.read_to_close(), False
            except ConnectionResetError:
                return call.received, True


def test_refused() -> None:
    assert faulty(Fault(refuse=True)) == (b"", False)
    assert faulty(Fault(refuse=True, by="rst")) == (b"", True)


@pytest.mark.parametrize("by", ["fin", "rst"])
def test_cut_on_the_wire(by: str) -> None:
    received, reset = faulty(Fault(cut=200, by=by))
    assert (len(received), reset) == (200, by == "rst")


def test_cut_behind_the_head() -> None:
    received, _ = faulty(Fault(cut_body=0))
    assert received.endswith(b"\r\n\r\n") and received.count(b"\r\n\r\n") == 1
    received, _ = faulty(Fault(cut_body=7))
    assert len(received.partition(b"\r\n\r\n")[2]) == 7


def test_a_cut_body_is_recorded_as_far_as_it_went() -> None:
    with stand_in(keep_bodies=True) as sim:
        sim.script(Fault(cut_body=300))
        with Call(sim) as call:
            framed = call.read_to_close().partition(b"\r\n\r\n")[2]
        assert len(framed) == 300
        assert sim.requests[0].sent == re.sub(rb"(\r\n)?[0-9a-f]+\r\n(?=\{)|\r\n$", b"", framed)


def test_status_in_each_dialect() -> None:
    with stand_in() as sim:
        sim.script(Fault(status=429), times=2)
        with Call(sim) as call:
            assert body_of(call.read_all()) == b'{"error":"simulated failure"}'
        with Call(sim, "/v1/completions") as call:
            assert json.loads(body_of(call.read_all()))["error"]["type"] == "api_error"
        sim.script(Fault(status=500, body=b"oops"))
        with Call(sim) as call:
            assert body_of(call.read_all()) == b"oops"


def test_stalls_until_the_client_leaves() -> None:
    with stand_in() as sim:
        sim.script(Fault(stall=250))
        with Call(sim) as call:
            while len(call.received) < 250:
                call.received += call.socket.recv(1000)
            assert sim.running(A) == 1
            call.leave()
            assert sim.wait_for(lambda: sim.requests[0].client_left)


def test_drips_and_pauses_and_delays() -> None:
    with stand_in(tokens=1) as sim:
        sim.script(Fault(drip=0.0001, delay=0.01, pause=0.001))
        with Call(sim) as call:
            assert lines_of(call.read_all())[-1]["done"] is True
        assert sim.requests[0].first_byte - sim.requests[0].arrived >= 0.01


def test_garbage_in_the_middle() -> None:
    with stand_in() as sim, Call(sim, prompt="@@garbage@@") as call:
        lines = body_of(call.read_all()).splitlines()
    assert lines[9] == b"this line is no JSON" and json.loads(lines[-1])["done"]


def test_no_final_record() -> None:
    with stand_in() as sim, Call(sim, prompt="@@no_done@@") as call:
        assert not any(line["done"] for line in lines_of(call.read_all()))
    with stand_in() as sim, Call(sim, "/v1/completions", prompt="@@no_done@@", stream=True) as call:
        assert b"[DONE]" not in call.read_all()


def test_the_runner_dies() -> None:
    with stand_in() as sim:
        with Call(sim, prompt="@@error_line@@") as call:
            assert lines_of(call.read_all())[-1]["error"].endswith("unexpected EOF")
        with Call(sim, "/v1/completions", prompt="@@error_line@@", stream=True) as call:
            assert b'"model":""' in call.read_all()
        with Call(sim, prompt="@@error_line@@", stream=False) as call:
            assert b"HTTP/1.1 500" in call.read_all()


def test_raw_bytes() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"
    assert faulty(Fault(raw=raw)) == (raw, False)
    assert faulty(Fault(raw=raw, cut_body=2)) == (raw[:-3], False)


def test_scripts_match_and_run_out() -> None:
    with stand_in() as sim:
        sim.script(Fault(status=418), model="SMOLLM2:135m", prompt="tea", times=1)
        for prompt, status in (("coffee", b"200"), ("tea", b"418"), ("tea", b"200")):
            with Call(sim, prompt=prompt, stream=False) as call:
                assert call.read_all()[9:12] == status


def test_a_request_sets_its_own_pace() -> None:
    with stand_in() as sim, Call(sim, prompt="@@tokens=3,interval=0.001@@", stream=False) as call:
        assert json.loads(body_of(call.read_all()))["eval_count"] == 3


def test_a_mark_that_cannot_be_read_is_a_400() -> None:
    for mark in ("@@colour=red@@", "@@cut=soon@@", "@@cut=1,by=axe@@"):
        with stand_in() as sim, Call(sim, prompt=mark) as call:
            assert call.read_all().startswith(b"HTTP/1.1 400")


# --- stopping and starting again


def test_it_starts_again_on_the_same_port_with_nothing_loaded() -> None:
    with stand_in() as sim:
        with Call(sim, stream=False) as call:
            call.read_all()
        port = sim.port
        sim.stop()
        with pytest.raises(ConnectionRefusedError):
            Call(sim)
        sim.start()
        assert (sim.port, sim.loaded()) == (port, [])
        with Call(sim, stream=False) as call:
            assert b"200 OK" in call.read_all()
