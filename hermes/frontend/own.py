"""Hermes's own routes under /v1/llm/: one request shape for every model, one answer that carries usage and timing.

Errors are {"error": text}. Towards Ollama each call is a native stream, whatever the client wants: so a client that leaves is noticed,
the time of the first token is known, and an answer counts only when its last record said `done`.
"""

import json
import secrets
import time
from dataclasses import dataclass
from functools import partial

from hermes.dispatch.dispatcher import Dispatcher
from hermes.dispatch.lease import Lease
from hermes.dispatch.pending import Pending
from hermes.errors import HermesError, UpstreamBroken, UpstreamFailed
from hermes.frontend import guards, loading
from hermes.frontend.exchange import JSON, NDJSON, SSE, Call, Dialect, Response, Streamed, encode, error_event, error_line
from hermes.frontend.heartbeat import Beats, Late
from hermes.frontend.ownbody import read_request, to_native
from hermes.frontend.relay import come_again, find_place, refusal
from hermes.frontend.router import Route
from hermes.frontend.wishes import asker_of, told
from hermes.workers.messages import Rename

DIALECT = Dialect("own", error_line, error_event, ollamas=False)


class Own:
    """The endpoint; runs in its client's handler thread."""

    def __init__(self, dispatcher: Dispatcher):
        self._dispatcher = dispatcher

    def routes(self) -> list[Route]:
        return [Route("POST", "/v1/llm/{model}", DIALECT, self.generate, infers=True)]

    def generate(self, call: Call) -> Response | Streamed:
        asked = read_request(call.body)
        place = find_place(self._dispatcher, call)
        loading.add(asked, place, guards.check(asked, place, "/api/chat"))
        name = self._dispatcher.name_of(place, call.model)
        path, body = to_native(asked, name)
        job = self._dispatcher.job("POST", path, body=body, ending="done", decode=True, headers=(("Content-Type", "application/json"),),
                                   rename=Rename("model", name, call.model) if name != call.model else None)       # for Ollama's errors
        stream = "stream" in asked and asked["stream"].value
        pending = call.pending = self._dispatcher.admit(place, guards.timed(job, place), asker_of(call))
        lease = pending.wait(call.arrived + (call.heartbeat if stream else call.heartbeat_plain))
        return _streamed(call, pending, lease) if stream else _plain(call, pending, lease)


def _streamed(call: Call, pending: Pending, lease: Lease | None) -> Response | Streamed:
    """Our records, or Ollama's refusal; if neither has come yet, heartbeats first."""
    kind = SSE if call.wants_sse() else NDJSON
    source_of = partial(_records, call, kind)
    if lease is not None:
        call.headers += told(pending, lease.queued)
        if lease.head.status != 200:
            return _refused(lease)
    source = Late(pending, Beats(call.heartbeat, kind), source_of) if lease is None else source_of(lease)
    headers = (("Content-Type", kind), ("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no"))
    return Streamed(200, source, "plain", headers=headers, in_band=DIALECT.in_band(kind, call.request_id))


def _records(call: Call, kind: str, lease: Lease) -> "Records":
    call.queued = lease.queued
    if lease.head.status != 200:
        raise refusal(lease)
    return Records(Answer(call, lease), kind == SSE)


def _plain(call: Call, pending: Pending, lease: Lease | None) -> Response | Streamed:
    """One object; if it is long in coming and that is wished, spaces in front of it."""
    if lease is None:
        beats = Beats(call.heartbeat_plain, JSON)
        return Streamed(200, Late(pending, beats, partial(Whole, call)), "plain", headers=(("Content-Type", JSON),), in_band=DIALECT.error_body)
    call.queued = lease.queued
    call.headers += told(pending, lease.queued)
    return _refused(lease) if lease.head.status != 200 else Response(200, _whole(Answer(call, lease)))


@dataclass(slots=True)
class Answer:
    """An answer as it comes in: Ollama's records, decoded, and the clock."""

    call: Call
    lease: Lease
    id: str = ""
    first_token: float | None = None
    rest: bytes = b""

    def __post_init__(self) -> None:
        self.id = "llm-" + secrets.token_hex(12)

    def records(self) -> list[dict]:
        """The records that have come, waiting for one; [] at the end. Raises HermesError, ClientGone."""
        while True:
            data = self.lease.read()
            *lines, self.rest = (self.rest + data).split(b"\n")
            if not data and self.rest:
                lines, self.rest = [self.rest], b""         # a load's answer is one object without a line end
            found = [self._record(line) for line in lines if line.strip()]
            if found or not data:
                return found

    def _record(self, line: bytes) -> dict:
        try:
            record = json.loads(line)
        except ValueError:
            raise UpstreamBroken("Ollama's answer is not JSON") from None
        if not isinstance(record, dict):
            raise UpstreamBroken("Ollama's answer is not made of JSON objects")
        if "error" in record:
            raise UpstreamFailed(str(record["error"]))
        if self.first_token is None:
            self.first_token = time.monotonic() - self.call.arrived
        return record

    def content(self, record: dict) -> dict:
        """What a record adds to the text or the message, in our words."""
        if "message" in record:
            return {"message": record["message"]}
        content = {"text": record.get("response", "")}
        if record.get("thinking"):
            content["thinking"] = record["thinking"]
        return content

    def closing(self, record: dict) -> dict:
        """Usage in tokens and timing in seconds, from the last record and our own clock."""
        load = record.get("load_duration")
        return {"done_reason": record.get("done_reason", "stop"),
                "usage": {"input_tokens": record.get("prompt_eval_count", 0), "output_tokens": record.get("eval_count", 0)},
                "timing": {"queue": round(self.call.queued, 6), "load": load / 1e9 if isinstance(load, (int, float)) else 0.0,
                           "first_token": round(self.first_token or 0.0, 6), "total": round(time.monotonic() - self.call.arrived, 6)}}


class Records:
    """The streamed form: a record for each of Ollama's, the last with usage and timing. A Source."""

    def __init__(self, answer: Answer, sse: bool):
        self.ended = False
        self._answer = answer
        self._frame = b"data: %b\n\n" if sse else b"%b\n"

    def read(self) -> bytes:
        answer, pieces = self._answer, []
        records = answer.records()
        for record in records:
            done = record.get("done") is True
            shape = {"id": answer.id, "model": answer.call.model, **answer.content(record), "done": done}
            if done:
                shape |= answer.closing(record)
            pieces.append(self._frame % encode(shape))
        self.ended = not records
        return b"".join(pieces)

    def close(self) -> None:
        self._answer.lease.close()


class Whole:
    """The plain form of an answer that has begun with spaces. A Source of one read."""

    def __init__(self, call: Call, lease: Lease):
        call.queued = lease.queued
        if lease.head.status != 200:
            raise refusal(lease)
        self.ended = False
        self._answer = Answer(call, lease)
        self.close = lease.close

    def read(self) -> bytes:
        self.ended = True
        return _whole(self._answer)


def _whole(answer: Answer) -> bytes:
    """The answer in one object: texts joined, tool calls gathered, the last record's figures."""
    parts: dict[str, list] = {"text": [], "thinking": [], "tool_calls": []}
    role, last = None, {}
    with answer.lease:
        while records := answer.records():
            for last in records:
                message = last.get("message")
                source = message if isinstance(message, dict) else last
                role = source.get("role", role)
                parts["text"].append(source.get("content") or source.get("response") or "")
                parts["thinking"].append(source.get("thinking") or "")
                parts["tool_calls"] += source.get("tool_calls") or []
    shape = {"id": answer.id, "model": answer.call.model}
    thinking = {"thinking": "".join(parts["thinking"])} if any(parts["thinking"]) else {}
    if role is None:
        shape |= {"text": "".join(parts["text"]), **thinking}
    else:
        tools = {"tool_calls": parts["tool_calls"]} if parts["tool_calls"] else {}
        shape["message"] = {"role": role, "content": "".join(parts["text"]), **thinking, **tools}
    return encode({**shape, **answer.closing(last)})


def _refused(lease: Lease) -> Response:
    """Ollama's own refusal, with its status, in our shape."""
    return Response(lease.head.status, error_line(refusal(lease)), headers=come_again(lease.head.status))
