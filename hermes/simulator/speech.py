"""POST /v1/audio/transcriptions: the model is named inside a form (ollama-api.md §1.15). Runs in the handler thread of its request."""

from email.parser import BytesParser
from email.policy import HTTP

from hermes.simulator.exchange import ApiError, Exchange
from hermes.simulator.inference import refusals, want
from hermes.simulator.shapes import RUNNER_DIED
from hermes.simulator.text import encode, expected_text

_WORDS = 6


def transcribe(x: Exchange) -> None:
    """What was heard depends on the size of the file alone."""
    form = read_form(x.request.headers.get("content-type", ""), x.request.body)
    sent = form.get("model", b"").decode("utf-8", "replace")
    if not sent:
        raise ApiError(400, "model is required")
    if "file" not in form:
        raise ApiError(400, "file is required")
    name, model = x.installed(sent, "model '%s' not found")
    with refusals(), x.house.scheduler.lease(x.client, want(x, name, model, {}, None), x.entered):
        x.client.pause(x.pace.prompt_time)
    if x.wire.fault.error_line:
        raise ApiError(500, RUNNER_DIED)
    text = expected_text(str(len(form["file"])), _WORDS)
    if form.get("response_format") == b"text":
        return x.wire.answer(200, "text/plain; charset=utf-8", text.encode("utf-8"))
    x.wire.answer(200, "application/json", encode({"text": text}) + b"\n")


def read_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """The fields of a multipart form by name; nothing if it is none."""
    if not content_type.lower().startswith("multipart/form-data"):
        return {}
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n" + body)
    parts = message.iter_parts() if message.is_multipart() else ()
    return {str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True) or b"" for part in parts}
