"""One line an event on stderr, as key=value, and never a request that waits for whoever reads them.

A reader that has stopped would otherwise stop the server after a pipe's worth of lines (reliability.md §0.10): lines go through a
bounded queue, and what does not fit is dropped and counted.
"""

import json
import logging
import math
import queue
import sys
import threading
import time

QUEUE = 10_000              # lines
_ESCAPES = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}


class LineHandler(logging.Handler):
    """Formats in the caller's thread, writes in its own. `dropped` counts lines that nobody took in time."""

    def __init__(self, stream=None):
        super().__init__()
        self._stream = stream or sys.stderr
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE)
        self.dropped = 0
        self._told = 0                              # of those
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
        self._thread.join(1.0)
        super().close()

    def _write(self) -> None:
        while True:
            lines = [self._lines.get()]
            while len(lines) < 256:
                try:
                    lines.append(self._lines.get_nowait())
                except queue.Empty:
                    break
            text = "".join(f"{line}\n" for line in (*lines, self._confess()) if line is not None)
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                self.dropped += len(lines)          # stderr is closed or full: there is nowhere to say so
            if None in lines:
                return


    def _confess(self) -> str | None:
        """The line that says how many are missing, if more are than the last time."""
        missing, self._told = self.dropped - self._told, self.dropped
        return self.format(logging.makeLogRecord({"levelname": "WARNING", "msg": f"log lines dropped count={missing}"})) if missing else None


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
    """`2026-11-23T10:00:00.123Z level=info text`; control characters escaped, so that one event is one line."""

    converter = time.gmtime
    default_time_format = "%Y-%m-%dT%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += f" exception={self.formatException(record.exc_info)}"
        stamp = self.formatTime(record, self.default_time_format)
        return f"{stamp}.{int(record.msecs):03d}Z level={record.levelname.lower()} {text.translate(_ESCAPES)}"


def word(text: str) -> str:
    """A value for key=value: quoted where it would not be one word."""
    return text if text and not set(text) & set(' "=') else json.dumps(text)


def start(level: str) -> LineHandler:
    """Send the "hermes" loggers to stderr. Called once, by the command line."""
    handler = LineHandler()
    formatter = LineFormatter()
    handler.setFormatter(formatter)
    logger = logging.getLogger("hermes")
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    return handler


def stop(handler: LineHandler) -> None:
    logging.getLogger("hermes").removeHandler(handler)
    handler.close()
