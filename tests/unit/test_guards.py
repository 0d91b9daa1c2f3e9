"""What a request may ask of a model, on every route: what is refused, what is lowered, and that nothing else is touched."""

import json
import math

import pytest

from hermes.config.options import INT32, INT64, NUMBERS, OPTIONS, Bound
from hermes.dispatch.registry import Guards, Place
from hermes.errors import BadRequest
from hermes.frontend import guards, loading, native, openai
from hermes.frontend.jsonbody import VALUE_MAX, read_members, setting, splice
from hermes.workers.messages import Job, Timeouts

CEILING = Guards(max_output_tokens=100)
NATIVE = ("/api/generate", "/api/chat")
EMBEDDING = ("/api/embed", "/api/embeddings")
V1 = {"/v1/chat/completions": "max_tokens", "/v1/completions": "max_tokens", "/v1/messages": "max_tokens", "/v1/responses": "max_output_tokens"}


def through(body: bytes | dict, limits: Guards = Guards(), path: str = "/api/chat", **place: object) -> bytes:
    """The body that goes to Ollama."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    members, where = read_members(body), Place(None, "m", 1.0, guards=limits, **place)
    change = guards.check(members, where, path, "X")
    return b"".join(splice(body, loading.edits(members, where, change) if path.startswith("/api/") else setting(members, change.fields)))


def own(asked: dict, limits: Guards = Guards(), **place: object) -> dict:
    """The same of a body under /v1/llm/."""
    members, where = read_members(json.dumps(asked).encode()), Place(None, "m", 1.0, guards=limits, **place)
    loading.add(members, where, guards.check(members, where, "/api/chat"))
    return {key: json.loads(member.body[member.start:member.end]) for key, member in members.items()}


def refused(body: bytes | dict, limits: Guards = Guards(), path: str = "/api/chat") -> str:
    with pytest.raises(BadRequest) as caught:
        through(body, limits, path)
    assert caught.value.status == 400
    return caught.value.text


def test_every_generating_route_has_its_limit() -> None:
    known = {path for path in (*native.GENERATING, *openai.GENERATING) if path not in native.EMBEDDING} | {guards.ANTHROPIC}
    assert set(guards.CEILINGS) == known == {*NATIVE, *V1}
    assert set(guards.SAID_IN_V1) <= set(NUMBERS)


# -- nothing applies -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", [*NATIVE, *EMBEDDING, *V1, "/v1/embeddings"])
@pytest.mark.parametrize("limits", [Guards(), Guards(max_run_time=1.0), Guards(1000, 1.0, 3600.0, (Bound("seed", 0, 9), Bound("top_p", 0, 1)))])
def test_what_is_within_its_limits_is_not_touched(path: str, limits: Guards) -> None:
    body = b'{ "model":"m","x":1e400, "options" : {"seed" :1.0,"num_predict":1000, "stop":["a"],"top_p":null}, "max_tokens" :1000,"max_output_tokens":3,' \
           b'"keep_alive": "1h" ,"top_p":1,"seed":null} trailing'
    assert through(body, limits, path) == body


@pytest.mark.parametrize("limits", [Guards(), Guards(max_run_time=1.0)])
def test_without_limits_there_is_no_change_at_all(limits: Guards) -> None:
    for path in (*NATIVE, *V1):
        for body in ({"model": "m"}, {"options": {"num_predict": -1}, "max_tokens": -1, "max_output_tokens": 10**30, "keep_alive": -1}):
            members = read_members(json.dumps(body).encode())
            assert guards.check(members, Place(None, "m", 1.0, guards=limits), path) is guards.NOTHING


# -- the length of an answer ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", NATIVE)
@pytest.mark.parametrize(("given", "kept"), [
    (-1, 100), (-2, 100), (-10**9, 100), (0, 100), (0.9, 100), (None, 100), (101, 100), (10**12, 100), (1e15, 100), (100.5, 100.5), (100, 100), (1, 1), (7.0, 7.0)])
def test_native_limits(path: str, given: float | None, kept: float) -> None:
    for options in ({"num_predict": given}, {"seed": 1, "num_predict": given, "stop": []}):
        found = json.loads(through({"model": "m", "options": options}, CEILING, path))
        assert found == {"model": "m", "options": options | {"num_predict": kept}}
        assert own({"prompt": "x", "options": options}, CEILING) == {"prompt": "x", "options": options | {"num_predict": kept}}


@pytest.mark.parametrize("path", NATIVE)
@pytest.mark.parametrize("options", [{}, {"options": None}, {"options": {}}, {"options": {"seed": 1}}])
def test_native_requests_without_a_limit_get_one(path: str, options: dict) -> None:
    expected = {"model": "m", "options": (options.get("options") or {}) | {"num_predict": 100}}
    assert json.loads(through({"model": "m", **options}, CEILING, path)) == expected
    assert own({"prompt": "x", **({} if options.get("options", {}) is None else options)}, CEILING) == {"prompt": "x", "options": expected["options"]}


@pytest.mark.parametrize(("options", "last"), [
    ('{"num_predict":5,"num_predict":-1}', 100), ('{"num_predict":-1,"num_predict":5}', 5), ('{"num_predict":5,"num_predict":null}', 100),
    ('{"num_predict":5,"num\\u005fpredict":-1}', 100), ('{"NUM_PREDICT":5}', 100), ('{"num_predict":7,"Num_Predict":-1}', 7)])
def test_of_two_the_last_counts_and_letter_case_does(options: str, last: int) -> None:
    """Ollama compares options letter by letter: what differs in a letter is unknown to it and limits nothing."""
    assert json.loads(through(b'{"options":%b}' % options.encode(), CEILING))["options"] == {"num_predict": last}


@pytest.mark.parametrize("path", EMBEDDING)
def test_what_writes_nothing_has_no_limit(path: str) -> None:
    body = b'{"model":"m","options":{"num_predict":-1}}'
    assert through(body, CEILING, path) == body and through(b'{"model":"m"}', CEILING, path) == b'{"model":"m"}'
    assert through(b'{"model":"m","max_tokens":-1}', CEILING, "/v1/embeddings") == b'{"model":"m","max_tokens":-1}'


@pytest.mark.parametrize(("path", "key"), V1.items())
@pytest.mark.parametrize("given", [101, 10**30, 100, 1])
def test_v1_limits(path: str, key: str, given: int) -> None:
    found = through(b'{"model":"m", "%b" : %d }' % (key.encode(), given), CEILING, path)
    assert found == b'{"model":"m", "%b" : %d }' % (key.encode(), min(given, 100))
    assert json.loads(through({key.upper(): given}, CEILING, path)) == {key.upper(): min(given, 100)}, "Go does not mind letter case here"


@pytest.mark.parametrize(("path", "key"), V1.items())
@pytest.mark.parametrize("given", [{}, None, 0, -1, -10**30])
def test_v1_requests_without_a_limit_get_one(path: str, key: str, given: object) -> None:
    """But for Anthropic's: there Ollama itself refuses what has none."""
    body = {"model": "m"} if given == {} else {"model": "m", key: given}
    assert json.loads(through(body, CEILING, path)) == (body if path == "/v1/messages" else {"model": "m", key: 100})


@pytest.mark.parametrize(("path", "key"), V1.items())
@pytest.mark.parametrize("given", ["1e1", "5.0", "true", '"5"', "[5]", "{}", "1e400"])
def test_v1_limits_that_go_takes_for_no_int(path: str, key: str, given: str) -> None:
    body = b'{"model":"m","%b":%b}' % (key.encode(), given.encode())
    words = refused(body, CEILING, path)
    assert words.startswith("json: cannot unmarshal ") and words.endswith(f" into Go struct field X.{key} of type int")
    assert through(body, Guards(), path) == body, "without a limit it is Ollama's to refuse"


def test_the_newer_name_is_none_of_ollamas() -> None:
    body = {"model": "m", "max_completion_tokens": 10**6}
    assert json.loads(through(body, CEILING, "/v1/chat/completions")) == body | {"max_tokens": 100}


@pytest.mark.parametrize("key", ["max_tokens", "max_output_tokens", "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty"])
def test_what_is_limited_is_not_given_twice(key: str) -> None:
    """Go skips a null, so that of a number and a null behind it the number would count."""
    with pytest.raises(BadRequest, match="twice"):
        read_members(b'{"%b":1,"%b":null}' % (key.encode(), key.upper().encode()))


# -- options -------------------------------------------------------------------------------------------------------

WRONG = {"integer": ['"1"', "true", "[1]", "{}"], "float32": ['"1"', "false", "[0.5]", "{}"], "boolean": ["1", '"true"', "[]", "{}"], "array": ['"a"', "1", "true", "{}"]}


@pytest.mark.parametrize("path", [*NATIVE, *EMBEDDING])
@pytest.mark.parametrize("name", OPTIONS)
def test_types_are_ollamas(name: str, path: str) -> None:
    kind = OPTIONS[name].type
    for wrong in WRONG[kind]:
        assert refused(b'{"options":{"%b":%b}}' % (name.encode(), wrong.encode()), path=path) == f'option "{name}" must be of type {kind}'
    for right in {"integer": ("1", "0.0", "1.9", "1e0"), "float32": ("0", "0.5", "1e-400", "1E2"), "boolean": ("true", "false"), "array": ("[]", '["a","\\ud800"]')}[kind]:
        body = b'{"options":{"%b" : %b}}' % (name.encode(), right.encode())
        assert through(body, path=path) == body
    assert through(b'{"options":{"%b":null}}' % name.encode(), path=path) == b'{"options":{"%b":null}}' % name.encode()


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e39", "-1e39", "9223372036854775808", "-9223372036854775809e0"])
def test_numbers_that_no_runner_can_take(name: str, number: str) -> None:
    body = b'{"options":{"%b":%b}}' % (name.encode(), number.encode())
    if OPTIONS[name].type == "float32" and "922" in number:
        assert through(body) == body
    elif number == "9223372036854775808" and name in ("seed", "num_predict"):
        assert refused(body) == f'option "{name}" must be from {-INT64} to {INT64}'
    elif number != "-9223372036854775809e0" or name not in ("seed", "num_predict"):
        assert refused(body).startswith(f'option "{name}" must be from ')


@pytest.mark.parametrize(("name", "low", "high"), [
    ("num_ctx", 0, 16777216), ("num_batch", 0, 16777216), ("num_gpu", -1, 65536), ("main_gpu", -1, 1024), ("num_thread", 0, 4096), ("draft_num_predict", 0, 65536),
    ("num_keep", -1, INT32), ("repeat_last_n", -1, INT32), ("top_k", -INT32, INT32), ("seed", -INT64, INT64)])
def test_absurd_numbers(name: str, low: int, high: int) -> None:
    for value in (low, high):
        assert json.loads(through({"options": {name: value}})) == {"options": {name: value}}
    for value in (low - 1, high + 1, 10**40):
        assert refused({"options": {name: value}}) == f'option "{name}" must be from {low} to {high}'


@pytest.mark.parametrize("body", ["NaN", "Infinity", "-Infinity", "01", "1.", "0x1", "+1", "1e"])
def test_what_is_no_number_of_jsons(body: str) -> None:
    assert refused(b'{"options":{"temperature":%b}}' % body.encode())


def test_a_number_of_thousands_of_digits() -> None:
    assert refused(b'{"options":{"seed":%b}}' % (b"1" * 5000)) and refused(b'{"options":{"seed":%b}}' % (b"1" * (VALUE_MAX + 1)))


@pytest.mark.parametrize(("given", "kind"), [("[]", "array"), ('"x"', "string"), ("1", "number"), ("false", "bool"), ("[{}]", "array")])
def test_options_are_an_object(given: str, kind: str) -> None:
    for path in (*NATIVE, *EMBEDDING):
        assert refused(b'{"options":%b}' % given.encode(), path=path) == f"json: cannot unmarshal {kind} into Go struct field X.options of type map[string]interface {{}}"


@pytest.mark.parametrize("given", ['["a",1]', "[null]", "[[]]"])
def test_stop_is_of_strings(given: str) -> None:
    assert refused(b'{"options":{"stop":%b}}' % given.encode()) == 'option "stop" must be of an array of strings'


@pytest.mark.parametrize("path", [*NATIVE, *EMBEDDING])
@pytest.mark.parametrize(("given", "kept"), [
    ('{"n_discard":-1}', "{}"), ('{"n_discard":-1,"seed": 1.50}', '{"seed": 1.50}'), ('{ "seed":1 , "n_discard":{"a":[1e400]},"top_p" :0.5}', '{"seed":1,"top_p" :0.5}'),
    ('{"NUM_CTX":10,"num_ct\\u0078":8,"num_ctx ":9}', '{"num_ct\\u0078":8}'), ('{"\u017feed":1,"mirostat":2,"":3}', "{}"), ('{"%s":1,"stop":["}"]}' % ("x" * 500), '{"stop":["}"]}')])
def test_what_ollama_does_not_know_does_not_go_on(path: str, given: str, kept: str) -> None:
    assert through(b'{"a":1, "options":%b,"b":2}' % given.encode(), path=path).decode() == f'{{"a":1, "options":{kept},"b":2}}'


def test_unknown_options_beside_all_that_is_set() -> None:
    body = b'{"model":"m","keep_alive":-1,"options":{"x":1,"NUM_CTX":2,"num_ctx":3,"seed":4,"num_predict":-1}}'
    limits, expected = Guards(100, max_keep_alive=60.0), {"num_ctx": 8192, "seed": 4, "num_predict": 100}
    assert json.loads(through(body, limits, num_ctx=8192, keep_alive="1h")) == {"model": "m", "keep_alive": 60, "options": expected}
    assert own({"prompt": "x", "keep_alive": -1, "options": {"x": 1, "NUM_CTX": 2, "num_ctx": 3, "seed": 4}}, limits, num_ctx=8192) == {
        "prompt": "x", "keep_alive": 60, "options": expected}
    assert own({"prompt": "x", "options": {"x": 1, "seed": 4}}) == {"prompt": "x", "options": {"seed": 4}}


def test_more_options_than_there_are() -> None:
    assert json.loads(through({"options": {str(number): 0 for number in range(1000)}})) == {"options": {}}
    assert refused({"options": {"x": "x" * VALUE_MAX}}) == "an object in the request body is too long"


# -- the operator's bounds -----------------------------------------------------------------------------------------

BOUNDS = Guards(bounds=(Bound("num_ctx", 0, 8192), Bound("temperature", 0, 0.5), Bound("num_gpu", 1, math.inf), Bound("seed", -math.inf, 7), Bound("top_k", 40, 40)))


@pytest.mark.parametrize("path", [*NATIVE, *EMBEDDING])
@pytest.mark.parametrize(("name", "good", "bad", "words"), [
    ("num_ctx", (0, 8192, 4096.5), (8193, 16777216), "from 0 to 8192"), ("temperature", (0, 0.5, 0.0), (-0.1, 0.51, 2), "from 0 to 0.5"),
    ("num_gpu", (1, 999), (0, -1), "at least 1"), ("seed", (7, -1), (8,), "at most 7"), ("top_k", (40,), (39, 41), "from 40 to 40")])
def test_bounds(path: str, name: str, good: tuple, bad: tuple, words: str) -> None:
    for value in good:
        assert json.loads(through({"options": {name: value}}, BOUNDS, path)) == {"options": {name: value}}
    for value in bad:
        assert refused({"options": {name: value}}, BOUNDS, path) == f'option "{name}" must be {words} for this model'
        with pytest.raises(BadRequest, match="for this model"):
            own({"prompt": "x", "options": {name: value}}, BOUNDS)
        assert json.loads(through({"options": {name: value}}, Guards(), path)) == {"options": {name: value}}
    last, first = json.dumps(good[0]), json.dumps(bad[-1])
    twice = f'{{"options":{{"{name}":{first},"{name}":{last}}}}}'.encode()
    assert through(twice, BOUNDS, path) == twice, "of two the last counts"
    assert refused(f'{{"options":{{"{name}":{last},"{name}":{first}}}}}'.encode(), BOUNDS, path)
    assert json.loads(through({"options": {name: None}}, BOUNDS, path)) == {"options": {name: None}}


@pytest.mark.parametrize("path", V1)
@pytest.mark.parametrize(("name", "good", "bad"), [("temperature", 0.5, 0.6), ("seed", 7, 8), ("top_k", 40, 41), ("top_p", 1, 1.5), ("presence_penalty", 0, 3), ("frequency_penalty", 1, -1)])
def test_bounds_hold_where_v1_has_the_option(path: str, name: str, good: float, bad: float) -> None:
    limits = Guards(bounds=(*BOUNDS.bounds, Bound("top_p", 0, 1), Bound("presence_penalty", 0, 1), Bound("frequency_penalty", 0, 1)))
    assert json.loads(through({"model": "m", name: good}, limits, path)) == {"model": "m", name: good}
    assert refused({"model": "m", name: bad}, limits, path).endswith("for this model")
    for other in (None, "hot", True, []):
        assert json.loads(through({name: other}, limits, path)) == {name: other}, "Ollama says what is wrong with it"
    assert json.loads(through({"num_ctx": 10**9, "options": {"num_ctx": 10**9}}, limits, path)), "Ollama reads neither there"


@pytest.mark.parametrize("path", V1)
@pytest.mark.parametrize("name", guards.SAID_IN_V1)
def test_numbers_that_no_runner_can_take_from_v1(path: str, name: str) -> None:
    for number in ("1e400", "-1e400", "1e39"):
        assert refused(b'{"model":"m","%b":%b}' % (name.encode(), number.encode()), path=path).startswith(f'option "{name}" must be from ')


# -- keep_alive ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", [*NATIVE, *EMBEDDING])
@pytest.mark.parametrize(("given", "kept"), [
    (-1, 600), (-0.5, 600), ("-1s", 600), ("-1m", 600), ("999h", 600), ("10m1s", 600), (601, 600), (600.5, 600), ("10m", "10m"), (600, 600), ("600s", "600s"), (0, 0),
    ("-0", "-0"), ("0s", "0s"), ("500ms", "500ms"), (1.5, 1.5), (None, None), ("+5m", "+5m"), (-1e9, 600)])
def test_a_capped_keep_alive(path: str, given: object, kept: object) -> None:
    limits = Guards(max_keep_alive=600.0)
    assert json.loads(through({"model": "m", "keep_alive": given}, limits, path)) == {"model": "m", "keep_alive": kept}
    assert json.loads(through({"model": "m", "keep_alive": given}, Guards(), path)) == {"model": "m", "keep_alive": given}
    if given is not None:
        assert own({"prompt": "x", "keep_alive": given}, limits) == {"prompt": "x", "keep_alive": kept}
    assert json.loads(through({"keep_alive": -1}, Guards(max_keep_alive=1.5), path)) == {"keep_alive": 1.5}


def test_the_operators_own_keep_alive_is_not_capped() -> None:
    limits = Guards(max_keep_alive=60.0)
    for body, expected in (({"a": 1}, "1h"), ({"keep_alive": None}, "1h"), ({"keep_alive": "1h"}, 60), ({"keep_alive": 5}, 5)):
        assert json.loads(through(body, limits, keep_alive="1h"))["keep_alive"] == expected


@pytest.mark.parametrize("given", ["-1", "5", "5y", "", "h", "5 m", "1h30", "∞", "NaN", "1e3s"])
def test_what_ollama_cannot_read(given: str) -> None:
    """It goes on where nothing is capped, as Ollama has words of its own for it; else nothing may pass that might mean for ever."""
    assert json.loads(through({"keep_alive": given}))["keep_alive"] == given
    assert refused({"keep_alive": given}, Guards(max_keep_alive=1.0)).startswith("keep_alive must be")


@pytest.mark.parametrize("limits", [Guards(), Guards(max_keep_alive=60.0)])
def test_keep_alives_that_mean_nothing(limits: Guards) -> None:
    for given, words in (("true", "Unsupported type: 'bool'"), ("[]", "Unsupported type: '[]interface {}'"), ("{}", "Unsupported type: 'map[string]interface {}'")):
        assert refused(b'{"keep_alive":%b}' % given.encode(), limits) == words
    for given in ("1e400", "-1e400", "1e300", '"99999999999h"', "9223372037"):
        assert "292 years" in refused(b'{"keep_alive":%b}' % given.encode(), limits)


@pytest.mark.parametrize("path", V1)
def test_v1_has_no_keep_alive(path: str) -> None:
    assert json.loads(through({"keep_alive": True}, Guards(max_keep_alive=1.0), path)) == {"keep_alive": True}


# -- the time of a call --------------------------------------------------------------------------------------------

def test_the_models_own_time_goes_with_the_job() -> None:
    job = Job("http://x", "POST", "/api/chat", timeouts=Timeouts(1.0, 2.0, 3.0, 4.0))
    assert guards.timed(job, Place(None, "m", 1.0)) is job
    assert guards.timed(job, Place(None, "m", 1.0, guards=Guards(max_run_time=9.0))) == job._replace(timeouts=Timeouts(1.0, 2.0, 3.0, 4.0, 9.0))
