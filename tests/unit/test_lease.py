"""One job's conversation with one worker, whose far end the test holds."""

import threading
import time

import pytest

from hermes.dispatch import lease as lease_module
from hermes.dispatch.dispatcher import Dispatcher, Upstream
from hermes.dispatch.lease import Lease
from hermes.dispatch.pending import Asker
from hermes.dispatch.pool import Pool
from hermes.dispatch.registry import Place
from hermes.errors import (BadRequest, ClientGone, RequestTimeout, UpstreamBroken, UpstreamError, UpstreamFailed, UpstreamTimeout,
                           WorkerLost)
from hermes.workers.messages import DATA_MAX, End, Failure, Head, Job, Kind, Prelude, Timeouts, frame, pack, unpack_job
from tests.harness import eventually
from tests.unit.fakes import hire
from tests.unit.test_feed import MORE, Body, fill

HEAD = Head(200, (("content-type", "text/plain"),), "plain")
JOB = Job("http://u", "POST", "/api/chat", body=b"{}", ending="done")
UPLOAD = JOB._replace(body=b"", follows=True)
BRIEF = JOB._replace(timeouts=Timeouts(0.0, 0.05, 0.05, 60.0))


def data(payload: bytes) -> bytes:
    return frame(Kind.DATA, payload)


class Talk:
    def __init__(self, new_child, new_pair):
        self.pool = Pool("m", "m", 1, 4)
        self.child = new_child()
        self.pool.offer(self.child)
        self.ours, self.client = new_pair()
        self.lease = Lease(self.pool, hire(self.pool, self.ours, 0), self.ours)

    def ask(self, job: Job, body: Body | None = None) -> Head:
        self.lease.begin(job, body)
        return self.lease.wait()

    def state(self) -> str:
        """Where the worker is now."""
        picture = self.pool.snapshot()
        return {(1, 0): "idle", (0, 1): "leased", (0, 0): "given up"}[picture.idle, picture.busy]

    def given_up(self) -> bool:
        """The worker is not used again, and its pipe is closed: it leaves or is killed."""
        return self.state() == "given up" and self.child.closed

    def read_all(self) -> bytes:
        pieces = []
        while piece := self.lease.read():
            pieces.append(piece)
        return b"".join(pieces)

    def obey(self, *answer: bytes, before: bytes = b"") -> threading.Thread:
        """The worker writes `before` until it is cancelled, then `answer`."""
        def work() -> None:
            while before and self.child.quiet():
                self.child.say(before)
            while self.child.hear()[0] != Kind.CANCEL:
                pass
            self.child.say(*answer)

        thread = threading.Thread(target=work)
        thread.start()
        return thread


@pytest.fixture
def talk(new_child, new_pair) -> Talk:
    return Talk(new_child, new_pair)


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(lease_module, "HUNG_MARGIN", 0.0)
    monkeypatch.setattr(lease_module, "GRACE", 5.0)


def test_order_of_frames(talk: Talk) -> None:
    talk.child.say(pack(HEAD), data(b"a"), data(b""), data(b"b"), pack(End(1, 2, 0.5)))
    assert talk.ask(JOB) == HEAD == talk.lease.head
    kind, payload = talk.child.hear()
    assert (kind, unpack_job(payload)) == (Kind.JOB, JOB)
    assert talk.state() == "leased" and not talk.lease.ended
    assert talk.lease.read() == b"ab"
    assert talk.lease.ended and talk.lease.end == End(1, 2, 0.5)
    assert talk.state() == "idle" and talk.pool.snapshot().answered == 1
    assert talk.lease.read() == b""
    talk.lease.close()
    assert talk.child.quiet() and talk.state() == "idle"


def test_what_it_took(talk: Talk) -> None:
    """A record is counted in whatever coding it comes; what stands inside a string is none, because there it is escaped."""
    talk.child.say(pack(HEAD), data(b'1a\r\n{"response":"a}\\n","x":{}}\n\r\n'), data(b'data: {"a":{}}\n\n'), data(b"data: [DONE]\n\n"), pack(End()))
    talk.ask(JOB)
    assert talk.lease.model == "m" and talk.lease.held == 0.0
    body = talk.read_all()
    assert (talk.lease.records, talk.lease.size) == (2, len(body)) and talk.lease.held > 0.0


def test_what_came_at_leisure_counts_as_well(talk: Talk) -> None:
    talk.child.say(pack(HEAD))
    talk.ask(JOB)
    for count in (1, 2):
        talk.child.say(data(b'{"a":1}\n'))
        assert talk.lease.read() == b'{"a":1}\n'
        assert (talk.lease.records, talk.lease.size) == (count, 8 * count)
    talk.child.say(data(b'{"a":1}\n' * 3), pack(End()))
    assert len(talk.read_all()) == 24 and talk.lease.records == 5


def test_the_control_pool_has_no_model(talk: Talk) -> None:
    assert Lease(Pool("control", "", 1, 4), talk.child, talk.client).model == ""


def test_a_lost_worker_was_held_as_well(talk: Talk) -> None:
    talk.child.die()
    with pytest.raises(WorkerLost):
        talk.ask(JOB)
    assert talk.lease.held > 0.0


def test_one_frame_after_the_other(talk: Talk) -> None:
    talk.child.say(pack(HEAD))
    talk.ask(JOB)
    for piece in (b"a", b"b" * 100_000):
        talk.child.say(data(piece))
        received = talk.lease.read()
        while len(received) < len(piece):
            received += talk.lease.read()
        assert received == piece and not talk.lease.ended
    talk.child.say(pack(End()))
    assert talk.lease.read() == b"" and talk.lease.ended


def test_empty_body(talk: Talk) -> None:
    talk.child.say(pack(HEAD), pack(End()))
    talk.ask(JOB)
    assert talk.lease.read() == b"" and talk.lease.ended and talk.state() == "idle"


@pytest.mark.parametrize(("failure", "expected"), [
    (Failure("UpstreamBroken", "cut"), UpstreamBroken), (Failure("UpstreamTimeout", "slow"), UpstreamTimeout),
    (Failure("UpstreamFailed", "it said so", True), UpstreamFailed), (Failure("NoSuchError", "?"), UpstreamError),
    (Failure("SystemExit", "?"), UpstreamError), (Failure("BadRequest", "?"), UpstreamError), (Failure("math", "?"), UpstreamError),
    (Failure("ClientGone", "?"), UpstreamError),
])
@pytest.mark.parametrize("place", ["before the head", "after the head", "after data", "with data"])
def test_failure(talk: Talk, failure: Failure, expected: type, place: str) -> None:
    if place == "before the head":
        talk.child.say(pack(failure))
        attempt = lambda: talk.ask(JOB)                 # noqa: E731
    else:
        talk.child.say(pack(HEAD))
        talk.ask(JOB)
        if place == "after data":
            talk.child.say(data(b"x"))
            assert talk.lease.read() == b"x"
        talk.child.say(*[data(b"x")] * (place == "with data"), pack(failure))
        if place == "with data":
            assert talk.lease.read() == b"x"                    # what came in front of the failure is not lost
        attempt = talk.lease.read
    with pytest.raises(UpstreamError) as caught:
        attempt()
    assert type(caught.value) is expected
    assert (caught.value.text, caught.value.told) == (failure.text, failure.told)
    assert talk.state() == "idle" and talk.pool.snapshot().answered == 0 and not talk.lease.ended


@pytest.mark.parametrize("said", [b"", pack(HEAD)[:3], pack(HEAD)[:-1]])
def test_worker_dies_before_the_head(talk: Talk, said: bytes) -> None:
    talk.child.hear_job = threading.Thread(target=lambda: (talk.child.hear(), talk.child.say(said), talk.child.far.close()))
    talk.child.hear_job.start()
    with pytest.raises(WorkerLost) as caught:
        talk.ask(JOB)
    talk.child.hear_job.join()
    assert caught.value.started and talk.given_up()


@pytest.mark.parametrize("said", [b"", data(b"more")[:3], data(b"more")[:-1]])
def test_worker_dies_after_the_head(talk: Talk, said: bytes) -> None:
    talk.child.say(pack(HEAD), data(b"x"))
    talk.ask(JOB)
    assert talk.lease.read() == b"x"
    talk.child.say(said)
    talk.child.hear()
    talk.child.far.close()
    with pytest.raises(WorkerLost) as caught:
        talk.lease.read()
    assert caught.value.started and talk.given_up()


def test_worker_is_dead_already(talk: Talk) -> None:
    talk.child.far.close()
    with pytest.raises(WorkerLost) as caught:
        talk.ask(JOB)
    assert not caught.value.started and talk.given_up()


def test_worker_that_does_not_take_its_job_is_killed(talk: Talk, monkeypatch) -> None:
    """A stopped process never reads the end of file: closing its pipe alone would leave its place taken for ever."""
    monkeypatch.setattr(lease_module, "HAND_OVER", 0.05)
    with pytest.raises(WorkerLost) as caught:
        talk.ask(JOB._replace(body=b"x" * (4 << 20)))
    assert not caught.value.started and talk.given_up()
    assert talk.child.killed


def test_a_worker_that_was_stopped_while_idle_is_missed_soon(talk: Talk, monkeypatch) -> None:
    monkeypatch.setattr(lease_module, "TAKEN", 0.05)
    with pytest.raises(WorkerLost, match="did not take the request") as caught:
        talk.ask(JOB)
    assert not caught.value.started and talk.given_up() and talk.child.killed == 1


def test_a_worker_that_has_its_job_may_take_its_time(talk: Talk, monkeypatch) -> None:
    """Whoever asks for it is told that the head has not come, before and after that look."""
    monkeypatch.setattr(lease_module, "TAKEN", 0.05)
    talk.lease.begin(JOB)
    talk.child.hear()
    assert talk.lease.wait(time.monotonic()) is None and talk.lease.wait(time.monotonic() + 0.1) is None
    talk.child.say(pack(HEAD))
    assert talk.lease.wait() == HEAD


@pytest.mark.parametrize("said", [
    pytest.param(raw, id=name) for name, raw in {
        "http": b"HTTP/1.1 200 OK\r\n\r\n", "pickle": b"\x80\x04\x95\x10\0\0\0", "oversized": bytes([Kind.DATA]) + (DATA_MAX + 1).to_bytes(4, "big"),
        "head is no json": frame(Kind.HEAD, b"{"), "head twice": pack(HEAD) * 2, "ready": pack(HEAD) + frame(Kind.READY),
        "a job": frame(Kind.JOB, b"{}"), "end before head": pack(End()), "data before head": data(b"x"),
        "data and end before head": data(b"x") + pack(End()), "data and failure before head": data(b"x") + pack(Failure("UpstreamBroken", "")),
        "data before head, then head": data(b"x") + pack(HEAD), "end is no json": pack(HEAD) + data(b"x") + frame(Kind.END, b"\xff"),
        "failure is no json": frame(Kind.FAILURE, b"[1"), "two ends": pack(HEAD) + pack(End()) * 2,
        "data behind the end": pack(HEAD) + pack(End()) + data(b"x"), "end and failure": pack(HEAD) + pack(End()) + pack(Failure("UpstreamBroken", "")),
    }.items()])
def test_gibberish(talk: Talk, said: bytes) -> None:
    """The worker is given up, the pool is sound, and the caller learns it as a WorkerLost."""
    talk.child.say(said)
    with pytest.raises(WorkerLost):
        talk.ask(BRIEF)
        talk.read_all()
    assert talk.given_up()
    talk.lease.close()
    assert None not in talk.pool._idle


@pytest.mark.parametrize("said", [b"", pack(HEAD)[:2], pack(HEAD)[:-1], pack(HEAD), pack(HEAD) + data(b"x")[:-1]])
def test_hung(talk: Talk, said: bytes) -> None:
    """Half a frame and then silence is silence."""
    talk.child.say(said)
    with pytest.raises(WorkerLost, match="hung"):
        talk.ask(BRIEF)
        talk.read_all()
    assert talk.given_up() and talk.child.killed == 1


def test_a_worker_that_waits_for_the_first_bytes_behind_a_head_is_not_hung(talk: Talk) -> None:
    """It sends the head on together with them, and so much later (Relay)."""
    talk.lease.begin(JOB._replace(timeouts=Timeouts(1.0, 50.0, 70.0, 600.0)))
    assert talk.lease._silent_until - talk.lease._began == pytest.approx(3 * 1.0 + 50.0 + 70.0, abs=5)


def test_two_requests_may_take_twice_as_long(talk: Talk) -> None:
    talk.lease.begin(JOB._replace(prelude=Prelude("/api/generate", "{}"), timeouts=Timeouts(1.0, 50.0, 1.0, 600.0)))
    assert talk.lease._silent_until - talk.lease._began == pytest.approx(2 * (3 * 1.0 + 50.0 + 1.0), abs=5)


@pytest.mark.parametrize(("times", "late"), [(Timeouts(total=0.0), True), (Timeouts(run=0.0), True), (Timeouts(run=60.0), False)])
def test_overdue_is_who_has_his_worker_for_too_long(talk: Talk, times: Timeouts, late: bool) -> None:
    assert not talk.lease.overdue(), "it has no job yet"
    talk.lease.begin(JOB._replace(timeouts=times))
    assert talk.lease.overdue() == late
    talk.obey(pack(Failure("ClientGone", "cancelled")))
    talk.lease.close()
    assert talk.state() == "idle" and not talk.lease.overdue()


@pytest.mark.parametrize("times", [Timeouts(60.0, 60.0, 60.0, 0.05), Timeouts(60.0, 60.0, 60.0, 60.0, 0.05)])
def test_hung_beyond_the_total(talk: Talk, times: Timeouts) -> None:
    talk.child.say(pack(HEAD), data(b"x"))
    talk.ask(JOB._replace(timeouts=times))
    assert talk.lease._last == pytest.approx(talk.lease._began + 0.05)
    with pytest.raises(WorkerLost, match="hung"):
        talk.read_all()
    assert talk.given_up() and talk.child.killed == 1


@pytest.mark.parametrize("answer", [[pack(Failure("ClientGone", "cancelled"))], [pack(End())], [data(b"late"), pack(End(1))]])
@pytest.mark.parametrize("phase", ["before the head", "after the head"])
def test_client_leaves_and_the_worker_answers_in_time(talk: Talk, phase: str, answer: list[bytes]) -> None:
    if phase == "after the head":
        talk.child.say(pack(HEAD))
        talk.ask(JOB)
    worker = talk.obey(*answer)
    talk.client.close()
    with pytest.raises(ClientGone):
        talk.ask(JOB) if phase == "before the head" else talk.lease.read()
    worker.join()
    assert talk.state() == "idle" and not talk.child.killed and talk.pool.snapshot().answered == 0
    talk.lease.close()
    assert talk.child.quiet()


@pytest.mark.parametrize("answer", [b"", data(b"still at it"), frame(Kind.HEAD, b"[]")[:3]])
def test_client_leaves_and_the_worker_does_not_answer_in_time(talk: Talk, monkeypatch, answer: bytes) -> None:
    monkeypatch.setattr(lease_module, "GRACE", 0.05)
    talk.child.say(pack(HEAD))
    talk.ask(JOB)
    talk.child.say(answer)
    talk.client.close()
    with pytest.raises(ClientGone):
        talk.lease.read()
    assert talk.given_up() and talk.child.killed == 1 and talk.child.unwanted


@pytest.mark.parametrize("answer", [b"", b"\xff" * 5])
def test_client_leaves_and_the_worker_dies_or_babbles(talk: Talk, answer: bytes) -> None:
    talk.child.say(pack(HEAD))
    talk.ask(JOB)
    talk.client.close()
    talk.child.say(answer)
    talk.child.far.close()
    with pytest.raises(ClientGone):
        talk.lease.read()
    assert talk.given_up()


def test_cancel_while_the_worker_writes_as_fast_as_it_can(talk: Talk) -> None:
    """The parent must read on, or a worker that waits to write would never hear the cancel."""
    talk.child.say(pack(HEAD))
    talk.ask(JOB)
    talk.child.hear()
    worker = talk.obey(pack(Failure("ClientGone", "")), before=data(b"x" * 50_000))
    assert talk.lease.read()
    talk.lease.close()
    worker.join()
    assert talk.state() == "idle" and not talk.child.killed


def test_close_needs_no_cancel_when_the_end_is_here(talk: Talk) -> None:
    talk.child.say(pack(HEAD), data(b"x"), pack(End()))
    with talk.lease:
        talk.ask(JOB)
        talk.child.hear()
    assert talk.state() == "idle" and talk.child.quiet() and not talk.child.killed


# -- a body that follows its job -----------------------------------------------------------------------------------


def test_job_body_answer(talk: Talk, start) -> None:
    began = start(talk.ask, UPLOAD, Body(talk.ours, 6))
    assert talk.child.hear()[0] == Kind.JOB
    talk.child.say(MORE)
    talk.client.sendall(b"abcdef")
    assert [talk.child.hear(), talk.child.hear()] == [(Kind.BODY, b"abcdef"), (Kind.BODY_END, b"")]
    talk.child.say(MORE, pack(HEAD), pack(End()))
    assert began.result(10) == HEAD and talk.lease.read() == b"" and talk.lease.ended
    assert talk.state() == "idle" and not talk.child.killed


@pytest.mark.parametrize("word", ["answer", "failure"])
def test_a_word_before_the_bodys_end_leaves_the_worker_usable(talk: Talk, word: str) -> None:
    body = Body(talk.ours, 6)
    talk.child.say(MORE, *[pack(HEAD), pack(End())] if word == "answer" else [pack(Failure("UpstreamBroken", "it died"))])
    if word == "answer":
        assert talk.ask(UPLOAD, body) == HEAD and talk.lease.read() == b""
    else:
        with pytest.raises(UpstreamBroken, match="it died"):
            talk.ask(UPLOAD, body)
    assert body.left and talk.state() == "idle" and not talk.child.killed


@pytest.mark.parametrize(("trouble", "error"), [("leaves", ClientGone), ("stops", RequestTimeout), ("malformed", BadRequest)])
def test_trouble_with_the_body_cancels_the_job(talk: Talk, trouble: str, error: type) -> None:
    body = Body(talk.ours, 6)
    talk.child.say(MORE * 2)
    talk.client.sendall(b"abc")
    if trouble == "leaves":
        talk.client.close()
    elif trouble == "malformed":
        body.error = BadRequest("malformed")
    else:
        body.patience = 0.05
    worker = talk.obey(pack(Failure("ClientGone", "cancelled")))
    with pytest.raises(error):
        talk.ask(UPLOAD, body)
    worker.join()
    assert talk.state() == "idle" and not talk.child.killed


@pytest.mark.parametrize(("said", "text", "killed"), [("half", "died", 0), (b"\xff" * 9, "gibberish", 1), (b"", "hung", 1), (pack(HEAD) + MORE, "gibberish", 1)])
def test_trouble_with_the_worker_during_a_body(talk: Talk, said, text: str, killed: int) -> None:
    talk.child.say(MORE[:3] if said == "half" else said)
    if said == "half":
        talk.child.far.shutdown(1)
    with pytest.raises(WorkerLost, match=text) as caught:
        talk.ask(BRIEF._replace(follows=True), Body(talk.ours, 6))
        talk.read_all()
    assert caught.value.started and talk.given_up() and talk.child.killed == killed


def test_a_worker_with_half_a_frame_on_its_pipe_is_of_no_further_use(talk: Talk, start) -> None:
    """Not on Linux, where the pipe holds the window. What would come next would be taken for the rest of that frame."""
    began = start(talk.ask, UPLOAD, Body(talk.ours, 6))
    assert talk.child.hear()[0] == Kind.JOB
    fill(talk.child.fd)
    talk.client.sendall(b"abcdef")
    talk.child.say(MORE)
    eventually(lambda: talk.child.unsent)
    talk.child.say(pack(Failure("UpstreamBroken", "it died")))
    with pytest.raises(UpstreamBroken, match="it died"):
        began.result(10)
    assert talk.given_up() and talk.child.killed == 1 and talk.child.unwanted


def open_upload(talk: Talk, start):
    dispatcher = Dispatcher(None, Upstream("http://u", UPLOAD.timeouts))
    return start(lambda: dispatcher.admit(Place(talk.pool, "", 30.0), UPLOAD, Asker(talk.ours, body=Body(talk.ours, 6))).wait())


def test_a_worker_that_is_lost_with_the_body_has_no_successor(talk: Talk, new_child, start) -> None:
    """It would get the rest of a body."""
    talk.pool.discard(talk.child)
    first = new_child()
    talk.pool.offer(first)
    opened = open_upload(talk, start)
    assert first.hear()[0] == Kind.JOB
    first.far.close()
    with pytest.raises(WorkerLost):
        opened.result(10)


def test_a_worker_that_never_had_the_job_has_one(talk: Talk, new_child, start) -> None:
    talk.pool.discard(talk.child)
    first, second = new_child(), new_child()
    first.far.close()
    talk.pool.offer(first)
    opened = open_upload(talk, start)
    eventually(lambda: talk.pool.snapshot().queued == 1)
    talk.pool.offer(second)
    assert second.hear()[0] == Kind.JOB
    second.say(MORE, pack(HEAD), pack(End()))
    assert opened.result(10).head == HEAD
