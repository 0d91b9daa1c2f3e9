"""The checkers of a storm, fed what they must let pass and what they must not: wrong bytes, silent cuts, errors of ours."""

import json
from dataclasses import replace

import pytest

from hermes.simulator import Simulator
from tests.chaos import judge
from tests.chaos.asks import body, numbers_of, path, prompt, text_of
from tests.chaos.judge import Seen, judge_attempts, judge_bytes, judge_log, judge_look, judge_refusal
from tests.chaos.plan import EMBEDDING_ROUTES, NAMES, TEXT_ROUTES, Ask, Manner
from tests.harness import Reply, post

ID = "chaos-1-8"
LEAVES = Manner("streaming", "fin")
ROUTES = [(route, True) for route in TEXT_ROUTES] + [(route, False) for route in (*TEXT_ROUTES, *EMBEDDING_ROUTES)]
STREAMS = [route for route, stream in ROUTES if stream]
NOTICES = {"/api/chat": b'{"error":"x"}\n', "/api/generate": b'{"error":"x"}\n', "/v1/llm/": b'{"error":"x"}\n',
           "/v1/chat/completions": b'data: {"error":{"message":"x","type":"api_error","param":null,"code":"worker_lost"}}\n\n',
           "/v1/messages": b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"},"request_id":"r"}\n\n'}
ERRORS = {"/api/": b'{"error":"x"}', "/v1/messages": b'{"type":"error","error":{"type":"api_error","message":"x"},"request_id":"r"}',
          "/v1/chat/completions": b'{"error":{"message":"x","type":"api_error","param":null,"code":null}}'}
every_route = pytest.mark.parametrize(("route", "stream"), ROUTES)
every_stream = pytest.mark.parametrize("route", STREAMS)


def an_ask(route: str, stream: bool = True, **fields) -> Ask:
    model = fields.pop("model", NAMES["e" if route in EMBEDDING_ROUTES else "m"])
    return Ask(8, 0.0, route, model, stream, 6, 0.0, **fields)


@pytest.fixture(scope="module")
def said():
    """What the stand-in says to an ask, as Hermes would have handed it on."""
    with Simulator() as ollama:
        def answer(ask: Ask) -> Reply:
            asked = json.loads(body(ask))
            if ask.route == "/v1/llm/":
                return _as_hermes(post(ollama.port, "/api/generate", {"model": ask.model, **asked}), ask.stream)
            reply = post(ollama.port, path(ask), asked)
            reply.headers["x-request-id"] = ID
            return reply
        yield answer


def _as_hermes(reply: Reply, stream: bool) -> Reply:
    records = [{"text": record["response"], "done": record["done"]} for record in reply.records()]
    text = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    return Reply(200, {"x-request-id": ID}, text if stream else json.dumps({"text": records[0]["text"]}).encode(), True)


def complaints(ask: Ask, reply: Reply, **more) -> list[str]:
    fields = {name: more.pop(name) for name in ("extra", "cut_short", "trouble") if name in more}
    return judge.judge(ask, Seen(reply, **fields), ID, **more)


def word_of(ask: Ask) -> str:
    """One that is the same in JSON, and stands in a record of its own."""
    return next(word for word in text_of(ask).split()[1:] if word.isascii() and word.isalpha() and len(word) > 4)


def only(found: list[str], part: str) -> bool:
    return len(found) == 1 and part in found[0]


# -- answers -------------------------------------------------------------------------------------------------------


@every_route
def test_a_whole_answer_is_good(said, route: str, stream: bool) -> None:
    ask = an_ask(route, stream)
    reply = said(ask)
    assert reply.complete and complaints(ask, reply) == complaints(ask, reply, calm=True) == []


@every_route
def test_a_wrong_word_is_seen(said, route: str, stream: bool) -> None:
    ask = an_ask(route, stream)
    reply = said(ask)
    right = str(numbers_of(ask)[3]) if route in EMBEDDING_ROUTES else word_of(ask)
    wrong = replace_first(reply.body, right.encode(), b"7" if route in EMBEDDING_ROUTES else b"WRONG")
    assert any("wrong" in text for text in complaints(ask, replace(reply, body=wrong)))


def replace_first(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new, 1)


@every_route
def test_an_answer_of_another_request_is_seen(said, route: str, stream: bool) -> None:
    other = replace(an_ask(route, stream), number=10)
    assert any("wrong" in text for text in complaints(an_ask(route, stream), said(other)))


@every_stream
def test_a_cut_at_any_byte(said, route: str) -> None:
    """Without the end of HTTP's framing and with a notice it is an honest failure; without the notice, or with a clean end, it is not."""
    ask, reply = an_ask(route), said(an_ask(route))
    apart = b"\n" if NOTICES[route].startswith(b"{") else b"\n\n"
    last = reply.body.rstrip().rfind(b"\n") + 1
    for cut in range(last):
        part = replace(reply, body=reply.body[:cut], complete=False)
        notice = (b"" if not cut or part.body.endswith(apart) else apart) + NOTICES[route]
        assert complaints(ask, replace(part, body=part.body + notice)) == [], cut
        assert complaints(replace(ask, manner=LEAVES), part, cut_short=True) == [], cut
        if b"message_stop" not in part.body:
            assert only(complaints(ask, part), "cut without a word"), cut
            assert any("silent cut" in text for text in complaints(ask, replace(part, complete=True))), cut
        assert any("a failure with a clean end" in text for text in complaints(ask, replace(part, body=part.body + notice, complete=True))), cut


@every_stream
def test_a_piece_that_is_missing_is_seen(said, route: str) -> None:
    ask, reply = an_ask(route), said(an_ask(route))
    end = b"\n" if NOTICES[route].startswith(b"{") else b"\n\n"
    pieces = reply.body.split(end)
    number = next(number for number, piece in enumerate(pieces) if word_of(ask).encode() in piece)
    shorter = end.join(pieces[:number] + pieces[number + 1:])
    assert [text for text in complaints(ask, replace(reply, body=shorter)) if "wrong words" in text]
    word = json.dumps(" " + text_of(ask).rpartition(" ")[2]).encode()
    last = max(number for number, piece in enumerate(pieces) if word in piece)
    shorter = end.join(pieces[:last] + pieces[last + 1:])
    assert only(complaints(ask, replace(reply, body=shorter)), "and is not")
    assert complaints(ask, replace(reply, body=reply.body + NOTICES[route])) == ["an error stands behind its end"]
    assert complaints(ask, replace(reply, body=reply.body + reply.body)) == ["it goes on behind its end"]
    assert any("cannot be read" in text for text in complaints(ask, replace(reply, body=b"{half a rec" + end + reply.body)))


@every_stream
def test_signs_of_life_may_come_first(said, route: str) -> None:
    ask, reply = an_ask(route), said(an_ask(route))
    signs = b"   " if NOTICES[route].startswith(b"{") else b": queued 1/2\n\n: keep-alive\n\n"
    assert complaints(ask, replace(reply, body=signs + reply.body)) == []
    assert complaints(ask, replace(reply, body=signs + NOTICES[route], complete=False)) == []
    assert only(complaints(ask, replace(reply, body=signs, complete=False)), "cut without a word")


def test_a_line_that_is_no_json_is_ollamas_only_if_it_was_asked_for(said) -> None:
    ask = an_ask("/api/chat", wish="garbage=1")
    reply = said(ask)
    assert complaints(ask, reply) == []
    assert any("cannot be read" in text for text in complaints(replace(ask, wish=ask.wish + " "), replace(reply, body=reply.body.replace(b"no JSON", b"my JSON"))))


@pytest.mark.parametrize("route", [route for route, stream in ROUTES if not stream])
def test_a_plain_answer_that_began_with_spaces_and_failed(said, route: str) -> None:
    ask = an_ask(route, False)
    error = ERRORS.get(route, ERRORS["/v1/chat/completions" if route == "/v1/embeddings" else "/api/"])
    late = Reply(200, {"x-request-id": ID}, b"  " + error, False)
    assert complaints(ask, late) == []
    assert complaints(ask, replace(late, complete=True)) and complaints(ask, replace(late, body=b"  ")) and complaints(ask, replace(late, body=b"<p>"))


def test_what_does_not_belong_to_the_answer(said) -> None:
    ask, reply = an_ask("/api/chat"), said(an_ask("/api/chat"))
    assert only(complaints(ask, reply, extra=b"HTTP/1.1"), "bytes behind the answer")
    assert only(complaints(ask, replace(reply, headers={**reply.headers, "x-request-id": "chaos-1-10"})), "is for chaos-1-10")
    assert complaints(ask, reply, trouble="no answer in 50 s") == ["no answer in 50 s"]


def test_no_answer_is_for_those_who_left() -> None:
    assert only(complaints(an_ask("/api/chat"), Reply(raw=b"HTT")), "no answer")
    assert complaints(an_ask("/api/chat", manner=LEAVES), Reply(raw=b"HTT"), cut_short=True) == []


# -- refusals ------------------------------------------------------------------------------------------------------


def refusal(status: int, route: str = "/api/", **headers: str) -> Reply:
    data = ERRORS[route]
    return Reply(status, {"x-request-id": ID, "content-length": str(len(data)), "retry-after": "5", **headers}, data, True)


@pytest.mark.parametrize(("status", "fields", "more", "good"), [
    (502, {}, {}, True), (503, {}, {}, True), (504, {}, {}, True), (499, {}, {"cancelled": True}, True), (499, {}, {}, False), (404, {}, {}, False), (404, {"model": "g"}, {}, True),
    (429, {"who": "dave"}, {}, True), (429, {}, {}, False), (429, {"wish": "status=429"}, {}, True), (500, {"wish": "status=429"}, {}, False), (302, {}, {}, False),
    (408, {"manner": Manner("slow")}, {}, True), (408, {}, {}, False), (401, {}, {}, False), (503, {}, {"calm": True}, False), (500, {}, {}, False)])
def test_statuses(status: int, fields: dict, more: dict, good: bool) -> None:
    assert (complaints(an_ask("/api/chat", **fields), refusal(status), **more) == []) is good


def test_a_500_is_ollamas_own_or_a_mistake() -> None:
    ask, reply = an_ask("/api/chat", wish="status=500"), refusal(500)
    assert complaints(ask, replace(reply, body=b'{"error":"simulated failure"}')) == []
    assert only(complaints(ask, replace(reply, body=b'{"error":"internal error"}')), "an error of ours")
    assert only(complaints(an_ask("/api/chat"), replace(refusal(502), body=b'{"error":"internal error"}')), "an error of ours")


@pytest.mark.parametrize(("route", "shape"), [("/api/chat", "/api/"), ("/v1/llm/", "/api/"), ("/v1/chat/completions", "/v1/chat/completions"),
                                              ("/v1/embeddings", "/v1/chat/completions"), ("/v1/messages", "/v1/messages")])
def test_an_error_has_the_shape_of_its_family(route: str, shape: str) -> None:
    ask = an_ask(route, route != "/v1/embeddings")
    for other in ERRORS:
        assert (complaints(ask, refusal(502, other)) == []) is (other == shape)
    assert complaints(ask, replace(refusal(502, shape), body=b"<html>")) and complaints(ask, replace(refusal(502, shape), complete=False))


def test_an_error_says_when_to_come_again() -> None:
    ask = an_ask("/api/chat")
    assert all(complaints(ask, refusal(503, retry_after="", **{"retry-after": value})) for value in ("", "0", "60", "soon"))
    headers = {"x-request-id": ID, "retry-after": "1"}
    assert only(complaints(ask, replace(refusal(503), headers=headers)), "without its whole body"), "there is no Content-Length"


def test_rubbish_is_refused() -> None:
    good = [refusal(400), Reply(404, {}, b"404 page not found", True), Reply(405, {}, b"405 method not allowed", True)]
    assert judge_refusal(good, "") == judge_refusal([], "") == []
    for bad in (refusal(500), replace(refusal(400), complete=False), Reply(200, {}, b"", True), Reply(404, {}, b"405 method not allowed", True)):
        assert len(judge_refusal([bad], "")) == 1
    assert judge_refusal([], "TimeoutError") == ["TimeoutError"]


def test_looks() -> None:
    whole = Reply(200, {}, b"{}", True)
    assert judge_look("/livez", whole, limited=False) == judge_look("/readyz", replace(whole, status=503), limited=False) == []
    assert judge_look("/api/tags", refusal(429), limited=True) == judge_look("/api/tags", refusal(499), limited=False, cancelled=True) == []
    assert judge_look("/v1/models", refusal(502, "/v1/chat/completions"), limited=False) == []
    assert judge_look("/v1/models/g", refusal(404, "/v1/chat/completions"), limited=False) == []
    for look, reply in (("/livez", replace(whole, complete=False)), ("/livez", replace(whole, status=503)), ("/api/tags", refusal(429)), ("/api/tags", refusal(499)),
                        ("/api/tags", refusal(500)), ("/v1/models", refusal(502)), ("/api/tags", refusal(502, "/v1/messages"))):
        assert len(judge_look(look, reply, limited=False)) == 1


# -- behind it -----------------------------------------------------------------------------------------------------


@every_stream
def test_bytes(said, route: str) -> None:
    ask = an_ask(route)
    if route == "/v1/llm/":
        return                              # Hermes's own records are not Ollama's
    reply = said(ask)
    before, sent = said(ask).body, reply.body
    half = sent[:len(sent) // 2 + 3]
    apart = b"\n" if NOTICES[route].startswith(b"{") else b"\n\n"
    signs = b"  " if NOTICES[route].startswith(b"{") else b": keep-alive\n\n"
    for good in (sent, half, signs + sent, signs, half + apart + NOTICES[route], signs + NOTICES[route], b""):
        assert judge_bytes(ask, replace(reply, body=good), [before, sent]) == [], good
    for bad in (half + b"x", sent[1:], half + half, half + b"x" + apart + NOTICES[route], signs + b"x" + sent):
        assert len(judge_bytes(ask, replace(reply, body=bad), [before, sent])) == 1, bad
    assert len(judge_bytes(ask, reply, [])) == 1
    named = replace(ask, model="m")
    assert judge_bytes(named, replace(reply, body=sent.replace(b'"model":"smollm2:135m"', b'"model":"m"')), [sent]) == []


def test_bytes_of_two_answers_to_one_prompt_do_not_mix(said) -> None:
    """A request that was tried twice: the records have the time in them."""
    ask = an_ask("/api/chat")
    first, second = said(ask), said(ask)
    assert first.body != second.body
    cut = first.body.index(b"\n") + 1
    assert len(judge_bytes(ask, replace(first, body=first.body[:cut] + second.body[cut:]), [first.body, second.body])) == 1


def test_bytes_of_a_late_failure_of_a_plain_answer() -> None:
    for route, error in (("/api/chat", ERRORS["/api/"]), ("/v1/messages", ERRORS["/v1/messages"]), ("/v1/chat/completions", ERRORS["/v1/chat/completions"])):
        assert judge_bytes(an_ask(route, False), Reply(200, {}, b"  " + error, False), []) == []


def test_attempts() -> None:
    assert judge_attempts(an_ask("/api/chat"), 4) == judge_attempts(an_ask("/api/chat", manner=Manner("body")), 0) == []
    assert len(judge_attempts(an_ask("/api/chat"), 5)) == len(judge_attempts(an_ask("/api/chat", manner=Manner("head")), 1)) == 1


class TestLog:
    LINE = "2026-11-27T03:37:59.123Z level=info request method=POST path=/api/chat client=bob model=m status={} outcome={} queue_s=0.1 duration_s=0.2 request_id={}"

    def test_good(self) -> None:
        lines = ["listening on http://127.0.0.1:1 upstream=x", self.LINE.format(200, "ok", ID), self.LINE.format(499, "cancelled", "other"), self.LINE.format(499, "cancelled", "other")]
        assert judge_log(lines, {ID: 200}) == []
        assert judge.outcomes(lines) == ["ok", "cancelled", "cancelled"]

    @pytest.mark.parametrize("lines", [
        [], [LINE.format(502, "worker_lost", ID)], [LINE.format(200, "ok", ID)] * 2, [LINE.format(200, "ok", ID), "Exception in thread"],
        [LINE.format(200, "internal_error", ID)], [LINE.format(200, "ok", ID), "2026-11-27T03:37:59.123Z level=error a mistake exception=Traceback (most"]])
    def test_bad(self, lines: list[str]) -> None:
        assert len(judge_log(lines, {ID: 200})) == 1


def test_prompts_are_what_the_stand_in_answers(said) -> None:
    ask = an_ask("/api/generate", False)
    assert said(ask).json()["response"] == text_of(ask) and "tokens=6" in prompt(ask)
