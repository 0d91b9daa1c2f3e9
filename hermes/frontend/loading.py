"""How a model is to be loaded, said on every route, so that no two requests make Ollama load it in turn (ollama-api.md §0.11, §3.4).

    native   num_ctx in the request's options, keep_alive beside them
    /v1      can say neither: num_ctx is that of the model which is called, a second name of the one that was asked for (see
             hermes.dispatch.derivatives), and keep_alive goes ahead in a request of its own that only loads

The operator's num_ctx holds whatever the client's was: another one would cost everybody a load. A keep_alive of the client's own holds, as
it is about his request; the next one that has none takes it back.
"""

import json

from hermes.config.options import OPTIONS
from hermes.dispatch.registry import Place
from hermes.frontend.guards import NOTHING, Change
from hermes.frontend.jsonbody import Edit, Members, read_members, set_inside, setting, setting_inside
from hermes.workers.messages import Prelude


def edits(members: Members, place: Place, change: Change = NOTHING) -> list[Edit]:
    """What has to change in a native body, and for other reasons as well: `change`. Raises BadRequest."""
    options = _options(place, change)
    found = setting_inside(members, "options", options, OPTIONS if change.unknown else None) if options or change.unknown else []
    given = members.get("keep_alive")
    return found + setting(members, _fields(place, change, given is None or given.kind == "null"))


def add(asked: Members, place: Place, change: Change = NOTHING) -> None:
    """The same for the fields of a native body that is yet to be written. Raises BadRequest."""
    if (options := _options(place, change)) or change.unknown:
        given = asked.get("options")
        text = b'{"options":%b}' % (bytes(memoryview(given.body)[given.start:given.end]) if given else b"{}")
        asked.update(read_members(b"".join(set_inside(text, "options", options, OPTIONS if change.unknown else None))))
    if fields := _fields(place, change, "keep_alive" not in asked):
        asked.update(read_members(json.dumps(fields).encode()))


def _options(place: Place, change: Change) -> dict[str, object]:
    return change.options | {"num_ctx": place.num_ctx} if place.num_ctx else change.options


def _fields(place: Place, change: Change, open: bool) -> dict[str, object]:
    """`open`: the client has said no keep_alive."""
    return change.fields | {"keep_alive": place.keep_alive} if open and place.keep_alive != "" else change.fields


def prelude(place: Place, name: str, path: str) -> Prelude | None:
    """What goes ahead of a call to `path` that cannot say keep_alive itself. Embedding models know no /api/generate."""
    if place.keep_alive == "":
        return None
    loader = "/api/embed" if path == "/v1/embeddings" else "/api/generate"
    return Prelude(loader, json.dumps({"model": name, "keep_alive": place.keep_alive}))
