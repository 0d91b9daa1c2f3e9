"""What must hold, whatever goes wrong. Pure: what was seen goes in, complaints come out; no complaint is an empty list.

A complaint says what was seen. Whoever asks adds the number of the request and the seed.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hermes.simulator.shapes import RUNNER_DIED
from tests.chaos.asks import model_of, numbers_of, text_of
from tests.chaos.plan import EMBEDDING_ROUTES, TEXT_ROUTES, Ask
from tests.chaos.records import NotAnAnswer, Told, error_of, read_stream, read_whole
from tests.harness import Reply

GARBAGE = (b"this line is no JSON", b"data: this event is no JSON")
ALWAYS = {200, 502, 503, 504}
GOES = "g"                  # the name that some configurations do not have; Ollama has no such model
REFUSALS = {400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 421, 431, 501, 503, 505}
LIMITED = "dave"            # whose requests of a minute are counted
_PLAIN = {404: b"404 page not found", 405: b"405 method not allowed"}
_NOTICES = {("/v1/chat/completions", True): b'data: {"error":{', ("/v1/messages", True): b'event: error\ndata: {"type":"error",',
            ("/v1/chat/completions", False): b'{"error":{', ("/v1/messages", False): b'{"type":"error",'}
_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=(?:debug|info|warning|error) \S.*|listening on http://\S+ .*")
_ACCESS = re.compile(r" request method=\S+ .* status=(\d+) outcome=(\S+) .* request_id=(\S+)$")


@dataclass
class Seen:
    """What a client got. `trouble`: what kept it from going on, in words; `cut_short`: it left of its own will before the end; `extra`: bytes
    behind the answer; `seconds` from the request's first byte to the answer's last; `after`: the request before it on the same connection."""

    reply: Reply = field(default_factory=Reply)
    trouble: str = ""
    cut_short: bool = False
    extra: bytes = b""
    seconds: float = 0.0
    after: Ask | None = None


def judge(ask: Ask, seen: Seen, request_id: str, *, cancelled: bool = False, calm: bool = False) -> list[str]:
    """One answer. `cancelled`: somebody has tried to end the request; `calm`: nothing goes wrong, so that it must be answered well."""
    reply = seen.reply
    if seen.trouble:
        return [seen.trouble]
    if calm and not (reply.status == 200 and reply.complete):
        return [f"in a calm: status {reply.status}, complete {reply.complete}: {reply.body[:300]!r}"]
    if not reply.status:
        return [] if not ask.manner.stays else [f"no answer: {reply.raw[:200]!r}, on the connection of {seen.after or 'nobody before'}"]
    found = [f"{len(seen.extra)} bytes behind the answer: {seen.extra[:200]!r}"] if seen.extra else []
    if reply.headers.get("x-request-id") != request_id:
        found.append(f"the answer is for {reply.headers.get('x-request-id')}")
    try:
        return found + (_good(ask, seen) if reply.status == 200 else _bad(ask, seen, cancelled))
    except NotAnAnswer as wrong:
        return [*found, str(wrong)]


def _bad(ask: Ask, seen: Seen, cancelled: bool) -> list[str]:
    """A status other than 200: one of those that may be, and a whole error in the family's shape."""
    reply, found = seen.reply, []
    allowed = ALWAYS | ({499} if cancelled else set()) | ({429} if ask.who == LIMITED else set()) | ({408} if ask.manner.phase == "slow" else set())
    if ask.fault == "status":
        allowed |= {int(ask.wish[7:])}
    if ask.fault == "error_line" and not ask.stream:
        allowed |= {500}
    if ask.model == GOES:
        allowed |= {404}
    if reply.status not in allowed:
        found.append(f"status {reply.status}: {reply.body[:300]!r}")
    if seen.cut_short:
        return found
    if not reply.complete or "content-length" not in reply.headers:
        return [*found, f"an error without its whole body: {reply.status} {reply.body[:300]!r}"]
    text = error_of("/api/" if reply.status == 408 else ask.route, reply.body)
    if text == "internal error" or reply.status == 500 and text not in ("simulated failure", RUNNER_DIED):
        found.append(f"an error of ours: {reply.status} {text}")
    if reply.status in (429, 503) and not re.fullmatch(r"[1-9]|[1-5]\d", reply.headers.get("retry-after", "")):
        found.append(f"{reply.status} without a good Retry-After: {reply.headers.get('retry-after')}")
    return found


def _good(ask: Ask, seen: Seen) -> list[str]:
    return _stream(ask, seen, read_stream(ask.route, seen.reply.body)) if ask.stream else _whole(ask, seen)


def _stream(ask: Ask, seen: Seen, told: Told) -> list[str]:
    reply, expected, found = seen.reply, text_of(ask), []
    if not expected.startswith(told.text):
        found.append(f"wrong words: {told.text[-200:]!r} is not how {expected[:len(told.text) + 20][-220:]!r} goes")
    for line, at_the_end in told.strays:
        if not (ask.fault == "garbage" and line in GARBAGE) and not (at_the_end and not reply.complete):
            found.append(f"a line that cannot be read: {line[:200]!r}")
    if told.done and told.text != expected:
        found.append(f"it says that it is whole, and is not: {len(told.text)} of {len(expected)} characters")
    if reply.complete and not told.done:
        found.append(f"a silent cut: a clean end behind {reply.body[-200:]!r}")
    if reply.complete and told.error is not None:
        found.append(f"a failure with a clean end: {told.error}")
    if not reply.complete and not told.done and told.error is None and ask.manner.stays:
        found.append(f"cut without a word behind {reply.body[-200:]!r}")
    return found


def _whole(ask: Ask, seen: Seen) -> list[str]:
    """A plain answer. One that began with signs of life may have failed later, and then says so and has no clean end."""
    reply = seen.reply
    if not reply.complete:
        if "content-length" not in reply.headers and ask.manner.stays:
            error_of(ask.route, reply.body)
        return []
    if ask.fault == "garbage" and reply.body.strip() in GARBAGE:
        return []                           # Ollama's own words are passed on
    got, expected = read_whole(ask.route, reply.body), numbers_of(ask) if ask.route in EMBEDDING_ROUTES else text_of(ask)
    return [] if got == expected else [f"wrong answer: {str(got)[:200]!r} where {str(expected)[:200]!r} was said"]


def judge_refusal(replies: Sequence[Reply], trouble: str) -> list[str]:
    """What came of rubbish: nothing, or refusals, each whole and in some family's shape or Ollama's plain words."""
    found = [trouble] if trouble else []
    for reply in replies:
        if reply.status not in REFUSALS or not reply.complete:
            found.append(f"rubbish was answered {reply.status}, complete {reply.complete}: {reply.body[:200]!r}")
        elif reply.body != _PLAIN.get(reply.status):
            try:
                error_of("/api/", reply.body)
            except NotAnAnswer as wrong:
                found.append(str(wrong))
    return found


def judge_look(path: str, reply: Reply, *, limited: bool, cancelled: bool = False) -> list[str]:
    """A small GET: 200, or an error in the family's shape. `limited`: its client's requests are counted."""
    if not reply.complete:
        return [f"{path}: no whole answer: {reply.status} {reply.raw[:100]!r} {reply.body[:200]!r}"]
    if reply.status == 200 or reply.status == 503 and path == "/readyz":
        return []
    if reply.status not in ALWAYS | ({429} if limited else set()) | ({499} if cancelled else set()) | ({404} if path.endswith(f"/{GOES}") else set()):
        return [f"{path}: status {reply.status}: {reply.body[:200]!r}"]
    try:
        error_of("/v1/x" if path.startswith("/v1/models") else "/api/", reply.body)
    except NotAnAnswer as wrong:
        return [f"{path}: {wrong}"]
    return []


def judge_bytes(ask: Ask, reply: Reply, said: Iterable[bytes]) -> list[str]:
    """The body, but for signs of life before it and a notice behind it, is how one of the stand-in's answers to this prompt begins."""
    if ask.route not in TEXT_ROUTES[:-1] or reply.status != 200 or not reply.body:
        return []
    own, ollamas = json.dumps(ask.model).encode(), json.dumps(model_of(ask)).encode()
    answers = [answer.replace(b'"model":' + ollamas, b'"model":' + own) for answer in said]
    got, *shorter = _without_notice(ask.route, ask.stream, _without_beats(reply.body))
    if any(answer.startswith(part) for answer in answers for part in (got, *shorter)):
        return []
    return [f"not the bytes that Ollama sent: {got[:400]!r}"] if got else []


def _without_beats(body: bytes) -> bytes:
    return re.sub(rb"\A(?:: [^\n]*\n\n| )+", b"", body)


def _without_notice(route: str, stream: bool, body: bytes) -> tuple[bytes, ...]:
    """The body before the notice of an error, as it is and without the line end that sets the notice apart."""
    before, found, _ = body.rpartition(_NOTICES.get((route, stream), b'{"error":"'))
    if not found:
        return (body,)
    return (before, before.removesuffix(b"\n" if route.startswith("/api/") else b"\n\n"))


def judge_log(lines: Iterable[str], statuses: Mapping[str, int]) -> list[str]:
    """Each line one event, no mistake of ours among them; and of each request in `statuses`, by its id, exactly one with its status."""
    found, told = [], {}
    for line in lines:
        if "Traceback" in line or "outcome=internal_error" in line or not _LINE.fullmatch(line):
            found.append(f"in the log: {line[:2000]}")
        if match := _ACCESS.search(line):
            if match[3] in told and match[3] in statuses:
                found.append(f"{match[3]} is logged twice: {line[:300]}")
            told[match[3]] = int(match[1])
    for request_id, status in statuses.items():
        if told.get(request_id) != status:
            found.append(f"{request_id} was answered {status}, and the log says {told.get(request_id, 'nothing')}")
    return found


def outcomes(lines: Iterable[str]) -> list[str]:
    """How the requests ended, in the log's words."""
    return [match[2] for match in map(_ACCESS.search, lines) if match]


def judge_attempts(ask: Ask, count: int) -> list[str]:
    """How often Ollama has seen the prompt: by two workers at most, by each on a connection that had gone stale and on a new one."""
    if count and ask.manner.phase in ("head", "body"):
        return ["Ollama has seen it, and half of it was never sent"]
    return [f"Ollama has seen it {count} times"] if count > 4 else []
