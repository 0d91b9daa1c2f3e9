"""One event, one line; and a reader that has stopped stops nobody."""

import errno
import io
import json
import logging
import os
import signal
import threading
from types import SimpleNamespace

import pytest

from hermes import application, cli
from hermes.observe import logs
from tests.harness import eventually, in_threads


def line_of(text: str, *arguments: object, error: BaseException | None = None) -> str:
    """Without the stamp and the level."""
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logs.LineFormatter().format(logging.LogRecord("hermes", logging.ERROR, "f", 1, text, arguments, exc_info)).partition("level=error ")[2]


def test_one_event_is_one_line() -> None:
    record = logging.LogRecord("hermes", logging.WARNING, "f", 1, "a=%s\r\nb \x1b[31m \x85 \x7f é", ("x\ny",), None)
    record.created, record.msecs = 1795392000.0, 7.0
    assert logs.LineFormatter().format(record) == "2026-11-23T00:00:00.007Z level=warning a=x\\x0ay\\x0d\\x0ab \\x1b[31m \\x85 \\x7f é"


@pytest.mark.parametrize(("text", "line"), [
    ("\x00\t\x0b\x0c\x9b", "\\x00\\x09\\x0b\\x0c\\x9b"), ("\u2028\u2029", "\\u2028\\u2029"), ("abc\u202edef\u200b\ufeff", "abc\\u202edef\\u200b\\ufeff"), ("\ud800", "\\ud800"), ("\U000e0001", "\\U000e0001"),
    ("日本 😀 \ufffd", "日本 😀 \ufffd"), ("a\xa0b", "a\\xa0b")])
def test_what_a_terminal_or_a_reader_might_obey_is_escaped(text: str, line: str) -> None:
    assert line_of("%s", text) == line and len(line.splitlines()) == 1


def test_no_character_at_all_makes_two_lines() -> None:
    everything = "".join(map(chr, range(0x3000)))
    for at in range(0, len(everything), 100):
        line = line_of("%s", everything[at:at + 100])
        assert line.isprintable() and len(line.splitlines()) == 1


def test_exception_is_in_the_line() -> None:
    try:
        raise KeyError("k")
    except KeyError as error:
        line = line_of("x", error=error)
    assert line.startswith("x exception=Traceback") and line.endswith("KeyError: 'k'") and "\n" not in line


@pytest.mark.parametrize("character", ["x", "é", "\n", "😀", "\u2028"])
def test_a_long_line_is_cut_in_the_middle(character: str) -> None:
    """Where a traceback begins and where it ends is what one wants to know. The bound counts bytes, and the line's end among them."""
    def deep(depth: int) -> None:
        if depth == 0:
            raise RuntimeError("the end " + character * 9000 + " really")
        deep(depth - 1)

    try:
        deep(50)
    except RuntimeError as error:
        record = logging.LogRecord("hermes", logging.ERROR, "f", 1, "begins", (), (RuntimeError, error, error.__traceback__))
    line = logs.LineFormatter().format(record)
    assert logs.LINE - 20 <= len(line.encode()) < logs.LINE == 4096
    assert " begins exception=Traceback" in line and line.endswith(" really") and " ... " in line and line.isprintable()
    assert "é" * 1900 == line_of("%s", "é" * 1900), "what fits is not cut"


def test_an_event_as_json() -> None:
    record = logging.LogRecord("hermes", logging.WARNING, "f", 1, "a\x1b thing n=%d who=%s", (1, "x\ny"), None)
    record.created, record.msecs = 1795392000.0, 7.0
    line = logs.JsonFormatter().format(record)
    assert line == '{"time":"2026-11-23T00:00:00.007Z","level":"warning","message":"a\\u001b thing","n":1,"who":"x\\ny"}'


@pytest.mark.parametrize("character", ["x", "é", "\n", "😀", "\u2028"])
def test_an_exception_as_json(character: str) -> None:
    try:
        raise RuntimeError("begins" + character * 9000 + "really")
    except RuntimeError as error:
        record = logging.LogRecord("hermes", logging.ERROR, "f", 1, "x a=%s", ("b",), (RuntimeError, error, error.__traceback__))
    line = logs.JsonFormatter().format(record)
    event = json.loads(line)
    assert logs.LINE - 20 <= len(line) < logs.LINE and line.isascii() and line.isprintable()
    assert event["a"] == "b" and event["exception"].startswith("Traceback (most") and event["exception"].endswith("really")


def test_a_line_of_json_has_its_end_among_its_bytes() -> None:
    lines = [logs.JsonFormatter().format(logging.LogRecord("hermes", logging.ERROR, "f", 1, "x a=%s", ("x" * size,), None)) for size in range(3950, 4150)]
    assert max(map(len, lines)) == logs.LINE - 1


@pytest.mark.parametrize(("form", "terminal", "is_json"), [
    ("logfmt", True, False), ("logfmt", False, False), ("json", True, True), ("json", False, True), ("auto", True, False), ("auto", False, True)])
def test_which_format(capfd, monkeypatch, form: str, terminal: bool, is_json: bool) -> None:
    """Every line is in it: also of what nobody has taken, and where Hermes listens. And it can be changed."""
    logger = logging.getLogger("hermes")
    before, ctrl_c = (logger.level, logger.propagate), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(os, "isatty", lambda number: terminal and number == 2)
    other = "logfmt" if is_json else "json"
    handler = logs.start("info", other)
    try:
        logs.apply("warning", form)
        handler.dropped += 7
        logger.info("no")
        logger.warning("yes n=%d", 1)
        logs.announce("http://h:1", {"config": "a\nb", "models": 2})
    finally:
        logs.stop(handler)
        logger.level, logger.propagate = before
    said = capfd.readouterr().err.splitlines()
    if not is_json:
        assert sorted(line.partition("Z level=warning ")[2] for line in said) == ["", "log lines dropped count=7", "yes n=1"]
        return
    events = sorted(map(json.loads, said), key=lambda event: event["message"])
    assert all(event.pop("time").endswith("Z") for event in events)
    assert events == [{"level": "info", "message": "listening", "url": "http://h:1", "config": "a\nb", "models": 2},
                      {"level": "warning", "message": "log lines dropped", "count": 7}, {"level": "warning", "message": "yes", "n": 1}]


class Pipe(io.RawIOBase):
    """Where the log goes to. `go` is cleared to make it wait; `room`: bytes until the disk is full."""

    def __init__(self, room: float = float("inf")) -> None:
        super().__init__()
        self.go, self.entered, self.room, self.data = threading.Event(), threading.Event(), room, b""
        self.go.set()

    def write(self, data: bytes) -> int:
        self.entered.set()
        assert self.go.wait(10)
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = bytes(data[:int(min(self.room, len(data), 100))])         # and never takes much at once
        self.data, self.room = self.data + taken, self.room - len(taken)
        return len(taken)

    def lines(self) -> list[str]:
        assert self.data.endswith(b"\n") or not self.data
        return self.data.decode().splitlines()


def logger_to(pipe: Pipe) -> tuple[logging.Logger, logs.LineHandler]:
    log, handler = logging.Logger("test"), logs.LineHandler(pipe)
    log.addHandler(handler)
    return log, handler


def test_a_reader_that_has_stopped(monkeypatch) -> None:
    monkeypatch.setattr(logs, "QUEUE", 5)
    pipe = Pipe()
    pipe.go.clear()
    log, handler = logger_to(pipe)
    log.warning("first")
    assert pipe.entered.wait(10)
    for number in range(8):
        log.warning("line %d", number)              # returns at once, or the test hangs
    assert handler.dropped == 3
    pipe.go.set()
    eventually(handler._lines.empty)
    handler.close()
    assert pipe.lines() == ["first", *(f"line {number}" for number in range(5)), "log lines dropped count=3"]


@pytest.mark.parametrize("room", range(36))
@pytest.mark.parametrize("at_once", [True, False])
def test_a_full_disk(room: int, at_once: bool) -> None:
    """However little of a line went out, it stays one line; all others are lost, and known to be."""
    pipe = Pipe(room)
    outlet, lines = logs.Outlet(pipe), [f"line {number}" for number in range(5)]
    lost = outlet.send(lines) if at_once else sum(outlet.send([line]) for line in lines)
    begun = -(-room // len("line 0\n"))
    assert lost == 5 - min(begun, 5)
    pipe.room = 1
    assert outlet.send(["lost"]) == (1 if room % 7 else 0), "it goes on with the one that has begun"
    pipe.room = float("inf")
    assert outlet.send(["again"]) == 0
    assert pipe.lines() == [*lines[:begun], *([] if room % 7 else ["lost"]), "again"]


def test_a_disk_that_is_full_when_it_is_to_be_said(monkeypatch) -> None:
    pipe = Pipe(0)
    log, handler = logger_to(pipe)
    for number in range(3):
        log.warning("line %d", number)
        eventually(lambda: handler.dropped == number + 1)
    pipe.room = float("inf")
    log.warning("again")
    log.warning("and again")
    handler.close()
    assert pipe.lines()[0] == "again" and [line for line in pipe.lines() if "dropped" in line] == ["log lines dropped count=3"]


def test_many_threads_lose_nothing_while_somebody_reads() -> None:
    pipe = Pipe()
    log, handler = logger_to(pipe)
    in_threads(16, lambda thread: [log.warning("thread=%d number=%d", thread, number) for number in range(500)])
    eventually(handler._lines.empty)
    handler.close()
    assert handler.dropped == 0
    for thread in range(16):
        assert [line for line in pipe.lines() if line.startswith(f"thread={thread} ")] == [f"thread={thread} number={number}" for number in range(500)]


def test_many_threads_whose_lines_are_dropped_are_counted(monkeypatch) -> None:
    monkeypatch.setattr(logs, "QUEUE", 1)
    pipe = Pipe(0)                                  # every write fails, so that both sides count
    log, handler = logger_to(pipe)
    in_threads(8, lambda thread: [log.warning("x") for _ in range(500)])
    eventually(lambda: handler.dropped == 4000)
    handler.close()
    assert handler.dropped == 4000 and pipe.data == b""


def test_one_line_stands_for_many() -> None:
    seldom = logs.Seldom(10.0)
    assert [seldom.count(now) for now in (5.0, 5.1, 14.9, 15.0, 15.1, 40.0, 50.0)] == [1, 0, 0, 3, 0, 2, 1]


def test_a_stream_that_is_closed_raises_nothing() -> None:
    pipe = Pipe()
    pipe.write = lambda data: io.BytesIO().detach()     # ValueError's and OSError's common child
    log, handler = logger_to(pipe)
    log.warning("x")
    handler.close()
    assert handler.dropped == 1


def test_a_stream_that_would_block_takes_nothing() -> None:
    pipe = Pipe()
    pipe.write = lambda data: None
    log, handler = logger_to(pipe)
    log.warning("x")
    handler.close()
    assert handler.dropped == 1


def test_the_logger_of_hermes(capfd) -> None:
    logger = logging.getLogger("hermes")
    before = logger.level, logger.propagate, list(logger.handlers)
    handler = logs.start("warning", "logfmt")
    try:
        handler.dropped += 7
        logging.getLogger("hermes.pool").info("no")
        logging.getLogger("hermes.pool").error("yes n=%d", 1)
        assert logs.dropped() == 7
    finally:
        logs.stop(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
    logs.announce("http://h:1", {"config": "a\nb", "models": 2})
    said = capfd.readouterr().err.splitlines()
    assert said[0].endswith("Z level=error yes n=1") and said[1].endswith("Z level=warning log lines dropped count=7") and said[2:] == ["listening on http://h:1 config=a\\x0ab models=2"]
    assert logger.handlers == before[2] and logs.dropped() == 0


def test_what_ends_a_thread_is_one_line(capfd) -> None:
    logger = logging.getLogger("hermes")
    before, ctrl_c = (logger.level, logger.propagate), signal.getsignal(signal.SIGINT)
    handler = logs.start("warning", "logfmt")
    try:
        thread = threading.Thread(target=lambda: [][1], name="a b")
        thread.start()
        thread.join()
    finally:
        logs.stop(handler)
        logger.level, logger.propagate = before
    [line] = capfd.readouterr().err.splitlines()
    assert 'level=critical a thread ended by an error of ours thread="a b" exception=Traceback' in line and line.endswith("IndexError: list index out of range")
    assert threading.excepthook is threading.__excepthook__


def test_what_ends_hermes_is_one_line(capfd, monkeypatch) -> None:
    def run() -> None:
        raise RuntimeError("a\ndefect")

    logger = logging.getLogger("hermes")
    before, ctrl_c = (logger.level, logger.propagate), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(application, "build", lambda path, environ, notifier: SimpleNamespace(run=run, config=SimpleNamespace(log=SimpleNamespace(level="info", format="logfmt"))))
    try:
        assert cli.main(["serve"]) == cli.FAILED
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL, "it was to end Hermes at once until Hermes hears it"
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
        logger.level, logger.propagate = before
    [line] = capfd.readouterr().err.splitlines()
    assert "level=critical ended by an error of ours exception=Traceback" in line and line.endswith("RuntimeError: a\\x0adefect")


def test_nobody_to_announce_it_to() -> None:
    kept = os.dup(2)
    try:
        with open("/dev/full", "wb", buffering=0) as full:
            os.dup2(full.fileno(), 2)
        logs.announce("http://h:1", {})
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def test_ctrl_c_before_its_thread_runs_leaves_no_traceback(monkeypatch) -> None:
    """`logging` closes at its end what has been made, also what has only half been."""
    handlers: list[logs.LineHandler] = []
    made = logs.LineHandler.createLock

    def interrupted(_thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(logs.LineHandler, "createLock", lambda self: handlers.append(self) or made(self))
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with io.FileIO(os.dup(2), "w") as raw:
        with pytest.raises(KeyboardInterrupt):
            logs.LineHandler(raw)
        handlers[0].close()
