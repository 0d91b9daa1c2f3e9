"""Did a stream end as a success ends? The last record says so, or nobody does (design rule 8).

Pure. Ollama ends failed streams with perfect HTTP framing on most surfaces (ollama-api.md §0.6, §0.7, §2.3), so the framing alone
proves nothing. Only the last record is ever parsed, once, at the end.
"""

import json

from hermes.errors import UpstreamBroken
from hermes.workers.chunks import ChunkWalker, chunk, payload
from hermes.workers.messages import End, Failure

BLANK = 8                   # bytes: an empty line, chunk-coded; behind a record it does not replace it
LINE_MAX = 16 << 20         # bytes of one record; the largest honest one is the final `context` of a long generation


class LastRecord:
    """Keeps what was handed on last, from the beginning of a line on: the last record is in it, whatever way it was cut."""

    def __init__(self, coded: bool):
        """`coded`: what is handed on is chunk-coded, and ends at a chunk's end."""
        self._coded = coded
        self._line_end = b"\n\r\n" if coded else b"\n"
        self._parts: list[bytes] = []
        self._size = 0
        self.at_line_start = True

    def note(self, data: bytes) -> None:
        """Once for each read. Raises UpstreamBroken on an endless line."""
        if self.at_line_start and len(data) > BLANK:
            self._parts, self._size = [data], len(data)
        else:
            self._parts.append(data)
            self._size += len(data)
            if self._size > LINE_MAX:
                self._compact()
            if self._size > LINE_MAX:
                raise UpstreamBroken("Ollama's answer has a line of more than 16 MiB")
        self.at_line_start = data.endswith(self._line_end)

    def _compact(self) -> None:
        """Pieces that do not end where lines end: forget all lines but the last."""
        data = self.payload()
        data = data[data.rstrip().rfind(b"\n") + 1:]
        self._parts = [chunk(data) if self._coded else data]
        self._size = len(data)

    def payload(self) -> bytes:
        """The last lines, decoded; more of them than the last where chunks and lines do not coincide."""
        data = b"".join(self._parts)
        if not self._coded:
            return data
        if 0 <= (end := data.rfind(self._line_end, 0, -3)):
            last = ChunkWalker(decode=True)     # a chunk a line is the rule: look at the last one only
            try:
                if (found := last.feed(data[end + 3:])).strip() and last.at_boundary:
                    return found
            except UpstreamBroken:
                pass                            # it was no chunk's end
        return payload(data)


def judge(ending: str, tail: bytes) -> End | Failure:
    """What the last record says of a stream that had to end with `ending` (see messages.Job)."""
    lines = tail.split(b"\n")
    last = next((line for line in reversed(lines) if line.strip()), b"")
    if ending == "[DONE]":
        return _judge_sse(last, lines)
    record = _parse(last)
    if record.get("error"):
        return Failure("UpstreamFailed", _text(record["error"]), told=True)
    if ending == "done" and record.get("done") is True or ending == "success" and record.get("status") == "success":
        return figures(record)
    return _unfinished()


def figures(record: dict) -> End:
    """Tokens and load time of a final record or a whole JSON answer, native or OpenAI's (ollama-api.md §1.2: nanoseconds)."""
    usage = record.get("usage")
    if isinstance(usage, dict):
        return End(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    load = record.get("load_duration")
    absent = 0 if record.get("done") is True else None      # Ollama leaves a zero out (§1.2)
    return End(_count(record.get("prompt_eval_count", absent)), _count(record.get("eval_count", absent)),
               load / 1e9 if type(load) in (int, float) and abs(load) < 1e300 else None)


def figures_of(body: bytes) -> End:
    return figures(_parse(body))


def _judge_sse(last: bytes, lines: list[bytes]) -> End | Failure:
    records = [_parse(line[5:]) for line in lines if line.startswith(b"data:") and b'"' in line]
    for record in records:
        if record.get("error"):
            return Failure("UpstreamFailed", _text(record["error"]), told=True)
    if last.strip() != b"data: [DONE]":
        return _unfinished()
    return next((figures(record) for record in reversed(records) if record.get("usage")), End())    # zeros before the last (§1.10)


def _unfinished() -> Failure:
    return Failure("UpstreamBroken", "Ollama's answer ended without its final record")


def _parse(line: bytes) -> dict:
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
