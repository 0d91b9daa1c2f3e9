"""What a request may ask of a model: Ollama's options and their types, and the operator's limits. Pure.

Refused is what Ollama would refuse or could not do, and a number outside the operator's bounds: an error is more honest than a silent change.
Changed is what has a ceiling and a meaning below it: the length of an answer, which then ends by `length` as any other that is cut by its
limit, and the time that a model stays loaded. What Ollama ignores, an option it does not know, does not go on to it.

Sources: ollama-api.md §1.9 to §1.16 (fields), §2.2 (words), §3.4 (keep_alive).
"""

import math
from typing import NamedTuple

from hermes.config import keepalive
from hermes.config.options import OPTIONS, Bound, between
from hermes.dispatch.registry import Guards, Place
from hermes.errors import BadRequest
from hermes.frontend.jsonbody import Member, Members
from hermes.workers.messages import Job

# What limits the length of an answer. Of the newer max_completion_tokens Ollama reads nothing.
CEILINGS = {"/api/generate": "num_predict", "/api/chat": "num_predict", "/v1/chat/completions": "max_tokens", "/v1/completions": "max_tokens",
            "/v1/messages": "max_tokens", "/v1/responses": "max_output_tokens"}
ANTHROPIC = "/v1/messages"  # refuses a request without a limit
# What the /v1 routes can say of the options, under the same names.
SAID_IN_V1 = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")

_TYPES = {"integer": (int, float), "float32": (int, float), "boolean": (bool,), "array": (list,)}
_GO_TYPES = {"bool": "bool", "array": "[]interface {}", "object": "map[string]interface {}"}


class Change(NamedTuple):
    """What has to be set in a body: at its top level, and in its options, of which the `unknown` go."""

    fields: dict[str, object] = {}
    options: dict[str, object] = {}
    unknown: bool = False


NOTHING = Change()


def check(members: Members, place: Place, path: str, struct: str = "") -> Change:
    """What has to change in a body that goes to Ollama's `path`. `struct`: what Ollama calls it in its type errors. Raises BadRequest."""
    guards, limit = place.guards, CEILINGS.get(path)
    if path.startswith("/api/"):
        values, unknown = _read_options(members.get("options"), struct)
        _check_bounds(values, guards.bounds)
        lower = guards.max_output_tokens and limit and not 1 <= int(values.get("num_predict", 0)) <= guards.max_output_tokens
        fields = _capped(members.get("keep_alive"), guards.max_keep_alive)
        if not (lower or unknown or fields):
            return NOTHING
        return Change(fields, {"num_predict": guards.max_output_tokens} if lower else {}, unknown)
    values = {name: members[name].value for name in SAID_IN_V1 if name in members and members[name].kind == "number"}
    for name, value in values.items():
        _check_number(name, value)
    _check_bounds(values, guards.bounds)
    if not (guards.max_output_tokens and limit):
        return NOTHING
    return _lowered(members.get(limit), guards, (path, limit, f"{struct}.{limit}"))


def timed(job: Job, place: Place) -> Job:
    """`job` under the model's max_run_time."""
    if place.guards.max_run_time == math.inf:
        return job
    return job._replace(timeouts=job.timeouts._replace(run=place.guards.max_run_time))


# -- options -------------------------------------------------------------------------------------------------------

def _read_options(given: Member | None, struct: str) -> tuple[dict[str, object], bool]:
    """The known options with a value, the last of two with one name, as in Ollama; and whether there are unknown ones."""
    values: dict[str, object] = {}
    unknown = False
    if given is None or given.kind == "null":
        return values, unknown
    if given.kind != "object":
        raise BadRequest(f"json: cannot unmarshal {given.kind} into Go struct field {struct}.options of type map[string]interface {{}}")
    for name, value in given.pairs:             # Ollama compares the names letter by letter
        if name not in OPTIONS:
            unknown = True
        elif value is None:                     # as if it were not there
            values.pop(name, None)
        else:
            _check_option(name, value)
            values[name] = value
    return values, unknown


def _check_option(name: str, value: object) -> None:
    wanted = OPTIONS[name].type
    if type(value) not in _TYPES[wanted]:
        raise BadRequest(f'option "{name}" must be of type {wanted}')
    if wanted in ("integer", "float32"):
        _check_number(name, value)
    elif wanted == "array" and not all(isinstance(one, str) for one in value):
        raise BadRequest(f'option "{name}" must be of an array of strings')


def _check_number(name: str, value: int | float) -> None:
    option = OPTIONS[name]
    if not option.low <= value <= option.high:  # 1e400 is infinite
        low, high = (option.low, option.high) if option.type == "integer" else (f"{option.low:g}", f"{option.high:g}")
        raise BadRequest(f'option "{name}" must be {between(low, high)}')


def _check_bounds(values: dict[str, object], bounds: tuple[Bound, ...]) -> None:
    for name, low, high in bounds:
        if name in values and not low <= values[name] <= high:
            raise BadRequest(f'option "{name}" must be {between(low, high)} for this model')


# -- what is lowered -----------------------------------------------------------------------------------------------

def _lowered(given: Member | None, guards: Guards, names: tuple[str, str, str]) -> Change:
    """The length of an answer on a /v1 route; `names`: its path, the limit's name, and what Ollama calls that. What is no limit, zero among it, becomes
    one, but for Anthropic's, where Ollama refuses it. What Go does not take for an int is refused here, lest it be made a number by being replaced."""
    path, limit, field = names
    if given is None or given.kind == "null":
        return NOTHING if path == ANTHROPIC else Change({limit: guards.max_output_tokens})
    value = given.value if given.kind == "number" else None
    if not isinstance(value, int):
        raise BadRequest(f"json: cannot unmarshal {given.kind} into Go struct field {field} of type int")
    if 1 <= value <= guards.max_output_tokens or path == ANTHROPIC and value < 1:
        return NOTHING
    return Change({limit: guards.max_output_tokens})


def _capped(given: Member | None, most: float) -> dict[str, object]:
    """A keep_alive that is longer than `most` seconds, or for ever, becomes that. What Ollama cannot read goes on only where nothing is capped:
    it knows best what to say of it."""
    if given is None or given.kind == "null":
        return {}
    if given.kind not in ("string", "number"):
        raise BadRequest(f"Unsupported type: '{_GO_TYPES[given.kind]}'")
    seconds = keepalive.seconds(given.value)
    if math.isnan(seconds):
        if most < math.inf:
            raise BadRequest('keep_alive must be a time such as "5m" or a number of seconds')
        return {}
    if abs(seconds) > keepalive.LARGEST:
        raise BadRequest("keep_alive must be at most 292 years, or any negative number for ever")
    if most == math.inf or 0 <= seconds <= most:
        return {}
    return {"keep_alive": int(most) if most == int(most) else most}
