"""One line an event on stderr, as key=value or as JSON, and never a request that waits for whoever reads them.

A reader that has stopped would otherwise stop the server after a pipe's worth of lines (reliability.md §0.10): lines go through a
bounded queue, and what does not fit is dropped and counted. They are written past Python's buffers, which keep what a full disk has
refused and write it later, in pieces.
"""

import io
import logging
import math
import os
import queue
import threading
import time

from hermes.observe.fields import CUT, as_json, members, word

QUEUE = 10_000              # lines
LINE = 4096                 # bytes of a line, its end included; as much as a pipe takes in one piece


class Outlet:
    """Lines into a raw stream. One of which a part has gone out goes on the next time, so that no two become one."""

    def __init__(self, raw: io.RawIOBase):
        self._raw = raw
        self._begun = b""                           # what is left of it

    def send(self, lines: list[str]) -> int:
        """How many of them are lost, the last ones, because nobody takes them: the stream is closed or full, or would block."""
        data, sent = self._begun + "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"), 0
        try:
            while sent < len(data) and (taken := self._raw.write(memoryview(data)[sent:])):
                sent += taken
        except (OSError, ValueError):
            pass
        rest = data[sent:]
        begun = bool(rest and (data[sent - 1:sent] != b"\n" if sent else self._begun))
        self._begun = rest[:rest.index(b"\n") + 1] if begun else b""
        return rest.count(b"\n") - begun


class LineHandler(logging.Handler):
    """Formats in the caller's thread, writes in its own. `dropped` counts lines that nobody took in time."""

    def __init__(self, raw: io.RawIOBase):
        super().__init__()
        self.dropped = 0                            # under the handler's lock
        self._outlet = Outlet(raw)
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE)
        self._told = 0                              # of those dropped
        self._thread = threading.Thread(target=self._write, name="log writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what is there, for at most a second."""
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            pass
        if self._thread.ident is not None:          # Ctrl-C may come before it has been started
            self._thread.join(1.0)
        super().close()

    def _write(self) -> None:
        lines: list[str | None] = []
        while None not in lines:
            lines = [self._lines.get()]
            while len(lines) < 256:
                try:
                    lines.append(self._lines.get_nowait())
                except queue.Empty:
                    break
            missing = self.dropped - self._told
            confession = [self._confess(missing)] if missing else []
            if lost := self._outlet.send([line for line in lines if line is not None] + confession):
                with self.lock:
                    self.dropped += lost - len(confession)      # which comes last: if anything is lost, it is
            else:
                self._told += missing

    def _confess(self, missing: int) -> str:
        return self.format(logging.makeLogRecord({"levelname": "WARNING", "msg": "log lines dropped count=%d", "args": (missing,)}))


class Seldom:
    """For what happens a thousand times at once: one line in `seconds`, which says how many it stands for. One thread."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._next = -math.inf
        self._count = 0

    def count(self, now: float) -> int:
        """Of how many times to speak at the monotonic time `now`; 0 = not yet."""
        self._count += 1
        if now < self._next:
            return 0
        self._next = now + self._seconds
        count, self._count = self._count, 0
        return count


class LineFormatter(logging.Formatter):
    """`2026-11-23T10:00:00.123Z level=info text`; whatever is not to be seen is escaped, and what is too long is cut in the middle, so that one event
    is one line, for every reader, and moves no terminal's cursor."""

    converter = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += f" exception={self.formatException(record.exc_info)}"
        return _cut(f"{self.stamp(record)} level={record.levelname.lower()} {_visible(text)}")

    def stamp(self, record: logging.LogRecord) -> str:
        return f"{self.formatTime(record, self.default_time_format)}.{int(record.msecs):03d}Z"

    def announcement(self, url: str, facts: dict[str, object]) -> str:
        return _visible(" ".join([f"listening on {url}", *(f"{key}={value}" for key, value in facts.items())]))


class JsonFormatter(LineFormatter):
    """`{"time":"2026-11-23T10:00:00.123Z","level":"info","message":"text","key":"value"}`: the same, for those who read by machine."""

    def format(self, record: logging.LogRecord) -> str:
        exception = self.formatException(record.exc_info) if record.exc_info else ""
        return as_json(members(record, self.stamp(record), exception), LINE - 1)

    def announcement(self, url: str, facts: dict[str, object]) -> str:
        record = logging.makeLogRecord({"levelname": "INFO", "msg": "listening"})
        return as_json(members(record, self.stamp(record)) | {"url": url} | facts, LINE - 1)


def _visible(text: str) -> str:
    """Python knows which characters are printable: no control, no line or paragraph separator, nothing that turns the text around, no surrogate."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _escape(ord(each)) for each in text)


def _escape(number: int) -> str:
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _cut(line: str) -> str:
    if len(line) * 4 < LINE:
        return line                                 # nearly always
    data = line.encode()
    if len(data) < LINE:
        return line
    half = (LINE - 1 - len(CUT)) // 2
    return data[:half].decode("utf-8", "ignore") + CUT + data[-half:].decode("utf-8", "ignore")


def start(level: str, form: str) -> LineHandler:
    """Send the "hermes" loggers to stderr, and what ends a thread to them: Python's own words for that have many lines. Called once, by
    the command line."""
    handler = LineHandler(open(2, "wb", buffering=0, closefd=False))
    logger = logging.getLogger("hermes")
    logger.addHandler(handler)
    logger.propagate = False
    apply(level, form)
    threading.excepthook = _thread_ended
    return handler


def apply(level: str, form: str) -> None:
    """What is logged from now on, and as what: "logfmt", "json", or "auto", which is logfmt for a terminal and JSON for everything else."""
    logger = logging.getLogger("hermes")
    logger.setLevel(level.upper())
    formatter = JsonFormatter() if form == "json" or form == "auto" and not os.isatty(2) else LineFormatter()
    for handler in _handlers():
        handler.setFormatter(formatter)


def _handlers() -> list[LineHandler]:
    return [handler for handler in logging.getLogger("hermes").handlers if isinstance(handler, LineHandler)]


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    logging.getLogger("hermes").critical("a thread ended by an error of ours thread=%s", word(args.thread.name if args.thread else ""),
                                         exc_info=(args.exc_type, args.exc_value, args.exc_traceback))


def last_words() -> None:
    """Of the main thread, in the handler of what ends it."""
    logging.getLogger("hermes").critical("ended by an error of ours", exc_info=True)


def stop(handler: LineHandler) -> None:
    threading.excepthook = threading.__excepthook__
    logging.getLogger("hermes").removeHandler(handler)
    handler.close()


def dropped() -> int:
    """How many lines nobody took, since `start`."""
    return sum(handler.dropped for handler in _handlers())


def announce(url: str, facts: dict[str, object]) -> None:
    """Where Hermes listens: a line for whoever waits for it, at every log level. Where stderr is full or closed, nobody does."""
    formatter = next((handler.formatter for handler in _handlers()), LineFormatter())
    try:
        with open(2, "wb", buffering=0, closefd=False) as raw:
            raw.write(f"{formatter.announcement(url, facts)}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass
