"""Endpoints that change what models there are: create, push, blobs (ollama-api.md §5.2 to §5.4); and who is signed in: nobody.

Each runs in the handler thread of its request. Of a blob only its digest and size are kept.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from hermes.simulator.catalog import stream_steps
from hermes.simulator.exchange import JSON, ApiError, Exchange
from hermes.simulator.models import Name, SimModel, parse_name
from hermes.simulator.text import encode

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}\Z")
BLOBS = "/api/blobs/"


def create(x: Exchange) -> None:
    """POST /api/create. With `from`, the new model is the same file under another name; `parameters.num_ctx` becomes its own."""
    fields = x.fields("api.CreateRequest", {"model": "string", "name": "string", "from": "string", "stream": "bool"})
    name = parse_name(fields.get("model") or fields.get("name") or "")
    if name is None:
        raise ApiError(400, "invalid model name", direct=True)
    stream = fields.get("stream", True)
    if not fields.get("from") and not fields.get("files"):
        raise ApiError(400, "neither 'from' or 'files' was specified", late=True)
    steps = _create_steps(x, name, fields)
    if stream:
        return stream_steps(x, steps)
    last = [*steps][-1]
    x.wire.answer(500 if "error" in last else 200, JSON, encode(last))


def _create_steps(x: Exchange, name: Name, fields: dict) -> Iterator[dict[str, object]]:
    shelf, ledger = x.house.shelf, x.house.ledger
    model = SimModel(name.short)
    if fields.get("from"):
        source = parse_name(fields["from"])
        found = shelf.find(source.short) if source else None
        if found is None:
            yield {"error": f"pull model manifest: file does not exist: {fields['from']}"}
            return
        parameters = fields.get("parameters") or {}
        model = replace(found, context=int(parameters.get("num_ctx", found.context)))
        yield {"status": f"using existing layer sha256:{found.digest}"}
    elif missing := [digest for digest in fields["files"].values() if digest.replace("-", ":") not in ledger.blobs]:
        yield {"error": f"blob {missing[0]} does not exist"}
        return
    else:
        yield {"status": "parsing GGUF"}
    yield {"status": f"creating new layer sha256:{model.digest}"}
    yield {"status": "writing manifest"}
    with ledger.changed:
        shelf.install(name.short, model)
        ledger.changed.notify_all()
    yield {"status": "success"}


def push(x: Exchange) -> None:
    """POST /api/push: even a malformed name is a 200 whose stream says so."""
    fields = x.fields("api.PushRequest", {"model": "string", "name": "string", "stream": "bool"})
    sent = fields.get("model") or fields.get("name") or ""
    if not sent:
        raise ApiError(400, "model is required", direct=True)
    name = parse_name(sent)
    steps = _push_steps(x, sent, name.short if name else "")
    if fields.get("stream", True):
        return stream_steps(x, steps)
    last = [*steps][-1]
    x.wire.answer(500 if "error" in last else 200, JSON, encode(last))


def _push_steps(x: Exchange, sent: str, short: str) -> Iterator[dict[str, object]]:
    if not short:
        yield {"error": f"unqualified name: {sent}"}
        return
    yield {"status": "retrieving manifest"}
    found = x.house.shelf.find(short)
    if found is None:
        yield {"status": "couldn't retrieve manifest"}
        yield {"error": f"model '{sent}' not found"}
        return
    layer = {"status": f"pushing {found.digest[:12]}", "digest": f"sha256:{found.digest}", "total": found.size}
    yield layer
    yield layer | {"completed": found.size}
    yield {"status": "pushing manifest"}
    yield {"status": "success"}


def blob(x: Exchange) -> None:
    """HEAD and POST /api/blobs/:digest. The body was not read yet if it is here already: answered at once, and the connection closed."""
    digest = x.request.path.removeprefix(BLOBS)
    if not _DIGEST.match(digest):
        raise ApiError(400, "invalid digest format")
    digest = digest.replace("-", ":").lower()
    ledger = x.house.ledger
    if x.request.method == "HEAD":
        return x.wire.answer(200 if digest in ledger.blobs else 404, "", b"")
    if x.record.upload is None:
        x.wire.answer(200, "", b"", b"Connection: close\r\n")
        return x.wire.hang_up()
    got = f"sha256:{x.record.upload.sha256}"
    if got != digest:
        raise ApiError(400, f'digest mismatch, expected "{digest}", got "{got}"')
    with ledger.changed:
        ledger.blobs.add(digest)
        ledger.changed.notify_all()
    x.wire.answer(201, "", b"")


def me(x: Exchange) -> None:
    """POST /api/me: nobody is signed in."""
    x.wire.answer(401, "application/json; charset=utf-8", encode({"error": "unauthorized", "signin_url": "https://ollama.com/connect"}))
