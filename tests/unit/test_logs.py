"""One event, one line; and a reader that has stopped stops nobody."""

import io
import logging
import threading

from hermes.observe import logs
from tests.harness import eventually


def test_one_event_is_one_line() -> None:
    record = logging.LogRecord("hermes", logging.WARNING, "f", 1, "a=%s\r\nb \x1b[31m \x85 \x7f é", ("x\ny",), None)
    record.created, record.msecs = 1795392000.0, 7.0
    assert logs.LineFormatter().format(record) == "2026-11-23T00:00:00.007Z level=warning a=x\\x0ay\\x0d\\x0ab \\x1b[31m \\x85 \\x7f é"


def test_exception_is_in_the_line() -> None:
    try:
        raise KeyError("k")
    except KeyError as error:
        record = logging.LogRecord("hermes", logging.ERROR, "f", 1, "x", (), (KeyError, error, error.__traceback__))
    line = logs.LineFormatter().format(record)
    assert "exception=Traceback" in line and "KeyError" in line and "\n" not in line


class Stuck(io.StringIO):
    """A reader that reads when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.entered = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.go.wait(10)
        return super().write(text)


def test_a_reader_that_has_stopped(monkeypatch) -> None:
    monkeypatch.setattr(logs, "QUEUE", 5)
    stream = Stuck()
    handler = logs.LineHandler(stream)
    log = logging.Logger("test")
    log.addHandler(handler)
    log.warning("first")
    assert stream.entered.wait(10)
    for number in range(8):
        log.warning("line %d", number)              # returns at once, or the test hangs
    assert handler.dropped == 3
    stream.go.set()
    eventually(handler._lines.empty)
    handler.close()
    assert stream.getvalue() == "".join(f"{line}\n" for line in ("first", *(f"line {number}" for number in range(5)), "log lines dropped count=3"))


def test_one_line_stands_for_many() -> None:
    seldom = logs.Seldom(10.0)
    assert [seldom.count(now) for now in (5.0, 5.1, 14.9, 15.0, 15.1, 40.0, 50.0)] == [1, 0, 0, 3, 0, 2, 1]


def test_a_stream_that_is_closed_raises_nothing() -> None:
    stream = io.StringIO()
    stream.close()
    handler = logs.LineHandler(stream)
    logging.Logger("test").addHandler(handler)
    handler.handle(logging.LogRecord("test", logging.INFO, "f", 1, "x", (), None))
    handler.close()
    assert handler.dropped >= 1


def test_the_logger_of_hermes(monkeypatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    logger = logging.getLogger("hermes")
    before = logger.level, logger.propagate, list(logger.handlers)
    handler = logs.start("warning")
    try:
        logging.getLogger("hermes.pool").info("no")
        logging.getLogger("hermes.pool").error("yes n=%d", 1)
    finally:
        logs.stop(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
    assert stream.getvalue().endswith("Z level=error yes n=1\n") and "no\n" not in stream.getvalue()
    assert logger.handlers == before[2]
