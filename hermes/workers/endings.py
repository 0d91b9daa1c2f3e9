"""Did a stream end as a success ends? The last record says so, or nobody does (design rule 8).

Pure. Ollama ends failed streams with perfect HTTP framing on most surfaces (ollama-api.md §0.6, §0.7, §2.3), so the framing alone
proves nothing. Only the last record is ever parsed, once, at the end.
"""

import json
import re
from collections.abc import Iterator

from hermes.errors import UpstreamBroken
from hermes.workers.chunks import ChunkWalker, chunk, payload
from hermes.workers.messages import End, Failure

BLANK = 8                   # bytes: an empty line, chunk-coded; behind a record it does not replace it
SSE_ENDINGS = ("[DONE]", "message_stop", "response.completed")
LINE_MAX = 1 << 20          # bytes of one record that are kept; a longer one is kept without most of its texts and numbers
PARSED_MAX = 64 * 1024      # bytes of JSON that are parsed as they are: as objects, a list of numbers takes ten times the room
TEXT_MAX = 1000             # characters of a text, or a list of numbers, in such a record
_ESCAPE = rb'\\(?:u[0-9A-Fa-f]{4}|[^u])'
_TEXT = re.compile(rb'("(?>[^"\\]|%b){0,%d}+)(?>[^"\\]+|%b)*+("?)' % (_ESCAPE, TEXT_MAX, _ESCAPE))     # its beginning, the rest, its end if it has come
_NUMBERS = re.compile(rb"\[[-+.0-9Ee,]{%d,}," % TEXT_MAX)
_ASCII = bytes(range(128)) + b"?" * 128


class LastRecord:
    """Keeps what was handed on last, from the beginning of a line on: the last two records are in it, whatever way they were cut. Two, because
    in SSE the last one says only that it is the last, and the figures are in the one before."""

    def __init__(self, coded: bool):
        """`coded`: what is handed on is chunk-coded, and ends at a chunk's end."""
        self._coded = coded
        self._line_end = b"\n\r\n" if coded else b"\n"
        self._before: list[bytes] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._shortened = False
        self.at_line_start = True

    def note(self, data: bytes) -> None:
        """Once for each read. Raises UpstreamBroken on an endless line."""
        if self.at_line_start and len(data) > BLANK:
            self._before, self._parts, self._size, self._shortened = self._parts, [data], len(data), False
        else:
            self._parts.append(data)
            self._size += len(data)
            if self._size > LINE_MAX:
                self._compact()
                if self._size > LINE_MAX // 2:      # else each read would soon have to look at it again
                    raise UpstreamBroken("Ollama's answer has an endless line")
        self.at_line_start = data.endswith(self._line_end)

    def _compact(self) -> None:
        """Pieces that do not end where lines end: forget all lines but the last, and of a long one what does not tell how it ends."""
        data = self.payload()
        data = data[data.rstrip().rfind(b"\n") + 1:]
        if len(data) > LINE_MAX // 2:
            data, self._shortened = shortened(data), True
        self._before.clear()
        self._parts = [chunk(data) if self._coded else data]
        self._size = len(data)

    def payload(self) -> bytes:
        """The last records, decoded; more of them than two where chunks and records do not coincide."""
        data = self._decoded()
        return data.translate(_ASCII) if self._shortened else data      # a character may have lost its first byte

    def _decoded(self) -> bytes:
        data = b"".join(self._before + self._parts)
        if not self._coded:
            return data
        if 0 < (end := data.rfind(self._line_end, 0, -3)) and 0 <= (end := data.rfind(self._line_end, 0, end)):
            last = ChunkWalker(decode=True)     # a chunk a record is the rule: look at the last two only
            try:
                if (found := last.feed(data[end + 3:])).strip() and last.at_boundary:
                    return found
            except UpstreamBroken:
                pass                            # it was no chunk's end
        return payload(data)


def shortened(record: bytes) -> bytes:
    """A record, or the beginning of one, without most of each long text and list of numbers, such as the final `context` of a long generation.
    The rest of it may follow: what was JSON is JSON again, but for bytes beyond ASCII."""
    return _NUMBERS.sub(b"[", b"".join(_abridged(record)))


def _abridged(record: bytes) -> Iterator[bytes]:
    """Match by match, because `sub` would keep a piece for each of perhaps a hundred thousand texts, long or not."""
    at = 0
    for text in _TEXT.finditer(record):
        if text.end() - text.start() > TEXT_MAX:
            yield record[at:text.end(1)]
            at = text.start(2)
    yield record[at:]


def judge(ending: str, tail: bytes) -> End | Failure:
    """What the last record says of a stream that had to end with `ending` (see messages.Job)."""
    lines = tail.split(b"\n")
    last = next((line for line in reversed(lines) if line.strip()), b"")
    if ending in SSE_ENDINGS:
        return _judge_sse(ending, last, lines)
    record = _parse(last)
    if record.get("error"):
        return Failure("UpstreamFailed", _text(record["error"]), told=True)
    if ending == "done" and record.get("done") is True or ending == "success" and record.get("status") == "success":
        return figures(record)
    return _unfinished()


def figures(record: dict) -> End:
    """Tokens and load time of a final record or a whole JSON answer, native (ollama-api.md §1.2: nanoseconds), OpenAI's or Anthropic's."""
    response = record.get("response")
    usage = (response if isinstance(response, dict) else record).get("usage")
    if isinstance(usage, dict):
        return End(_count(usage.get("prompt_tokens", usage.get("input_tokens"))), _count(usage.get("completion_tokens", usage.get("output_tokens"))))
    load = record.get("load_duration")
    absent = 0 if record.get("done") is True else None      # Ollama leaves a zero out (§1.2)
    return End(_count(record.get("prompt_eval_count", absent)), _count(record.get("eval_count", absent)),
               load / 1e9 if type(load) in (int, float) and abs(load) < 1e300 else None)


def figures_of(body: bytes) -> End:
    return figures(_parse(body))


def _judge_sse(ending: str, last: bytes, lines: list[bytes]) -> End | Failure:
    """By what the data say, not by the events' names, which say the same again. In Responses an answer that was cut by a limit may end with
    `response.incomplete`: that is a final record too, as `finish_reason: length` is. `response.failed` is Ollama's own word that it failed,
    and its clients know it (ollama-api.md §1.14)."""
    records = [_parse(line[5:]) for line in lines if line.startswith(b"data:") and b'"' in line]
    for record in records:
        if error := _told(record):
            return Failure("UpstreamFailed", _text(error), told=True)
    if ending == "[DONE]":
        finished = last.strip() == b"data: [DONE]"
    else:
        finished = last.startswith(b"data:") and _parse(last[5:]).get("type") in (ending, "response.incomplete")
    if not finished:
        return _unfinished()
    # The last that has any: before it there may be zeros (§1.10), and behind it what only says that it is the last.
    return next((end for record in reversed(records) if (end := figures(record)) != End()), End())


def _told(record: dict) -> object:
    """The error of which a record tells the client, or nothing."""
    if record.get("type") == "response.failed":
        response = record.get("response")
        return isinstance(response, dict) and response.get("error") or "the response failed"
    return record.get("error") or record.get("type") == "error" and record


def _unfinished() -> Failure:
    return Failure("UpstreamBroken", "Ollama's answer ended without its final record")


def _parse(line: bytes) -> dict:
    if len(line) > PARSED_MAX:
        line = shortened(line).translate(_ASCII)
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _text(error: object) -> str:
    text = error.get("message") if isinstance(error, dict) else error
    return str(text)[:1000]


def _count(value: object) -> int | None:
    return value if type(value) is int else None
