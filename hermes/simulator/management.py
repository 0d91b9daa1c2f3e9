"""Endpoints that change what models there are: create, push, blobs (ollama-api.md §5.2 to §5.4). And who is signed in: nobody.

Each runs in the handler thread of its request. Of a blob only its digest and size are kept.
"""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

from hermes.simulator.catalog import stream_steps
from hermes.simulator.exchange import JSON, JSON_UTF8, ApiError, Exchange
from hermes.simulator.models import Name, SimModel, parse_name
from hermes.simulator.reading import read_body
from hermes.simulator.text import encode

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}\Z")
BLOBS = "/api/blobs/"


def create(x: Exchange) -> None:
    """POST /api/create: with `from`, the same file under another name, with `parameters` of its own; or a file of blobs."""
    types = {"model": "string", "name": "string", "from": "string", "stream": "bool", "files": "map[string]string",
             "parameters": "map[string]interface {}"}
    fields = x.fields("api.CreateRequest", types)
    name = parse_name(fields.get("model") or fields.get("name") or "")
    if name is None:
        raise ApiError(400, "invalid model name", direct=True)
    for path, digest in fields.get("files", {}).items():
        if path.startswith("/"):
            raise ApiError(400, "file path must be relative", direct=True)
        if not _DIGEST.match(str(digest)):
            raise ApiError(400, "invalid digest format", direct=True)
    if not fields.get("from") and not fields.get("files"):
        raise ApiError(400, "neither 'from' or 'files' was specified", late=True)
    _tell(x, fields, _derive(x, name, fields) if fields.get("from") else _assemble(x, name, fields["files"].values()))


def _tell(x: Exchange, fields: dict[str, Any], steps: Iterator[dict[str, object]]) -> None:
    """The steps as a stream, or only how it ended."""
    if fields.get("stream", True):
        return stream_steps(x, steps)
    last = [*steps][-1]
    x.wire.answer(500 if "error" in last else 200, JSON, encode(last))


def _derive(x: Exchange, name: Name, fields: dict[str, Any]) -> Iterator[dict[str, object]]:
    source = parse_name(fields["from"])
    found = x.house.shelf.find(source.short) if source else None
    if found is None:
        yield {"status": "pulling manifest"}
        yield {"error": "pull model manifest: file does not exist"}
        return
    yield {"status": f"using existing layer sha256:{found.digest}"}
    options = dict(found.options) | fields.get("parameters", {})
    yield from _install(x, name, replace(found, options=tuple(options.items()), modified_ns=time.time_ns()))


def _assemble(x: Exchange, name: Name, digests: Iterable[str]) -> Iterator[dict[str, object]]:
    missing = next((digest for digest in digests if _plain(digest) not in x.house.ledger.blobs), None)
    if missing:
        yield {"error": f"blob {missing} does not exist"}
        return
    yield {"status": "parsing GGUF"}
    yield from _install(x, name, SimModel(name.short, modified_ns=time.time_ns()))


def _install(x: Exchange, name: Name, model: SimModel) -> Iterator[dict[str, object]]:
    yield {"status": f"creating new layer sha256:{model.digest}"}
    yield {"status": "writing manifest"}
    with x.house.ledger.changed:
        x.house.shelf.install(name.short, model)
        x.house.ledger.changed.notify_all()
    yield {"status": "success"}


def push(x: Exchange) -> None:
    """POST /api/push: even a malformed name is a 200 whose stream says so."""
    fields = x.fields("api.PushRequest", {"model": "string", "name": "string", "stream": "bool"})
    sent = fields.get("model") or fields.get("name") or ""
    if not sent:
        raise ApiError(400, "model is required", direct=True)
    name = parse_name(sent)
    _tell(x, fields, _push_steps(x, sent, name.short if name else ""))


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
    """HEAD and POST /api/blobs/:digest. For one that is here the answer comes at once, its body unread."""
    digest = x.request.path.removeprefix(BLOBS)
    if not _DIGEST.match(digest):
        raise ApiError(400, "invalid digest format")
    digest = _plain(digest)
    ledger = x.house.ledger
    if x.request.method == "HEAD":
        return x.wire.answer(200 if digest in ledger.blobs else 404, "", b"")
    if digest in ledger.blobs:
        return x.wire.answer(200, "", b"", b"" if x.request.close else b"Connection: close\r\n")
    got = f"sha256:{_receive(x)}"
    if got != digest:
        raise ApiError(400, f'digest mismatch, expected "{digest}", got "{got}"')
    with ledger.changed:
        ledger.blobs.add(digest)
        ledger.changed.notify_all()
    x.wire.answer(201, "", b"")


def _plain(digest: str) -> str:
    return digest.replace("-", ":").lower()


def _receive(x: Exchange) -> str:
    """Reads the body, counts it and forgets it; its SHA-256 in hex."""
    digest = sha256()
    for piece in read_body(x.client, x.request.headers):
        digest.update(piece)
        x.house.ledger.uploaded(x.record, len(piece))
    x.house.ledger.uploaded(x.record, 0, digest.hexdigest())
    return digest.hexdigest()


def me(x: Exchange) -> None:
    """POST /api/me: nobody is signed in."""
    x.wire.answer(401, JSON_UTF8, encode({"error": "unauthorized", "signin_url": "https://ollama.com/connect"}))
