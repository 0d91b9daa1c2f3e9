"""How a model is to be loaded, said on every route, so that no two requests make Ollama load it in turn (ollama-api.md §0.11, §3.4).

    native   num_ctx in the request's options, keep_alive beside them
    /v1      can say neither: num_ctx is that of the model which is called, a second name of the one that was asked for (see
             hermes.dispatch.derivatives), and keep_alive goes ahead in a request of its own that only loads

The operator's num_ctx holds whatever the client's was: another one would cost everybody a load. A keep_alive of the client's own holds, as
it is about his request; the next one that has none takes it back.
"""

import json

from hermes.dispatch.registry import Place
from hermes.frontend.jsonbody import Edit, Members, inserting, read_members, replacing, set_inside, setting_inside
from hermes.workers.messages import Prelude


def edits(members: Members, place: Place) -> list[Edit]:
    """What has to change in a native body. Raises BadRequest."""
    found = setting_inside(members, "options", "num_ctx", place.num_ctx) if place.num_ctx else []
    if place.keep_alive == "":
        return found
    given = members.get("keep_alive")
    if given is None:
        found.append(inserting(members, {"keep_alive": place.keep_alive}))
    elif given.kind == "null":
        found.append(replacing(given, place.keep_alive))
    return found


def add(asked: Members, place: Place) -> None:
    """The same for the fields of a native body that is yet to be written. Raises BadRequest."""
    if place.num_ctx:
        given = asked.get("options")
        options = bytes(memoryview(given.body)[given.start:given.end]) if given else b"{}"
        asked.update(read_members(b"".join(set_inside(b'{"options":%b}' % options, "options", "num_ctx", place.num_ctx))))
    if place.keep_alive != "" and "keep_alive" not in asked:
        asked.update(read_members(json.dumps({"keep_alive": place.keep_alive}).encode()))


def prelude(place: Place, name: str, path: str) -> Prelude | None:
    """What goes ahead of a call to `path` that cannot say keep_alive itself. Embedding models know no /api/generate."""
    if place.keep_alive == "":
        return None
    loader = "/api/embed" if path == "/v1/embeddings" else "/api/generate"
    return Prelude(loader, json.dumps({"model": name, "keep_alive": place.keep_alive}))
