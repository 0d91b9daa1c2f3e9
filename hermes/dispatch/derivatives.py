"""Second names for models, under which Ollama loads them with a context size of the operator's choice. For handler threads.

OpenAI's and Anthropic's routes cannot say num_ctx, and Ollama loads a model anew when two requests differ in it (ollama-api.md §0.11). So
Hermes has Ollama create `hermes/gemma3:270m-ctx8192` from gemma3:270m. It shares the files, and, as Ollama tells runners apart by file
and options, the runner as well with native requests that say {"num_ctx": 8192} of gemma3:270m itself.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from hermes.dispatch.pool import Pool
from hermes.dispatch.registry import Place
from hermes.errors import ModelNotFound, QueueTimeout, UpstreamFailed
from hermes.names import canonical

NAMESPACE = "hermes"
PART_MAX = 80               # characters of a tag (ollama-api.md §3.6)
_SECOND = re.compile(rf"registry\.ollama\.ai/{NAMESPACE}/.*-ctx([0-9]{{1,9}})(?:-[0-9a-f]{{12}})?")

Ask = Callable[[str, str, object, bytes], tuple[int, bytes]]


def derived_name(model: str, num_ctx: int) -> str:
    """The second name: the same for every spelling of the model, and never the same for two models.

    A model of Ollama's own library lends its name and tag. Any other one, and one whose tag is too long to be added to, gets a hash of
    the whole name behind it; "ctx" cannot be part of that, so the two kinds cannot be taken for one another.
    """
    key = canonical(model)
    folder, _, name = key.rpartition("/")
    name, _, tag = name.partition(":")
    end = f"-ctx{num_ctx}"
    if folder != "registry.ollama.ai/library" or len(tag) + len(end) > PART_MAX:
        end += "-" + hashlib.sha256(key.encode()).hexdigest()[:12]
    return f"{NAMESPACE}/{name}:{tag[:PART_MAX - len(end)]}{end}"


def original(key: str, places: Iterable[Place]) -> Place | None:
    """The place among `places` whose model has the canonical name `key` for its second one, at whatever size: it is in Ollama's lists, and who
    calls it by that name must not get round what holds for the model."""
    size = _SECOND.fullmatch(key)
    return next((place for place in places if place.model and canonical(derived_name(place.model, int(size[1]))) == key), None) if size else None


class Derivatives:
    """`of` makes sure that the second name is there: once for each pool, and again after `forget`.

    Ollama copies nothing but the manifest, so what is made too often costs milliseconds; what is stale runs the old files of a model
    that has been pulled again.
    """

    def __init__(self, ask: Ask):
        """`ask`(method, path, client, body) → status, body."""
        self._ask = ask
        self._made: WeakKeyDictionary[Pool, str] = WeakKeyDictionary()
        self._making = threading.Lock()

    def of(self, place: Place, client: object) -> str:
        """The second name of a place's model. Raises ModelNotFound, UpstreamError, HermesBusy, QueueTimeout, ClientGone.

        One thread at a time makes any; the others wait, as long as their turn at the pool might take.
        """
        name = derived_name(place.model, place.num_ctx)
        if self._made.get(place.pool) == name:
            return name
        if not self._making.acquire(timeout=min(place.patience, threading.TIMEOUT_MAX)):
            raise QueueTimeout(f"model '{place.pool.name}' is still being prepared")
        try:
            made = self._made               # what is forgotten meanwhile stays forgotten
            if made.get(place.pool) != name:
                self._make(name, place, client)
                made[place.pool] = name
        finally:
            self._making.release()
        return name

    def forget(self, pool: Pool | None = None) -> None:
        """The model of a pool may have changed, or any model: make the second name anew when it is next asked for."""
        if pool is None:
            self._made = WeakKeyDictionary()
        else:
            self._made.pop(pool, None)

    def _make(self, name: str, place: Place, client: object) -> None:
        """Create would pull a model that is not there, so look first."""
        status, answer = self._ask("POST", "/api/show", client, json.dumps({"model": place.model}).encode())
        if status == 404:
            raise ModelNotFound(f"model '{place.pool.name}' not found")
        if status == 200:
            order = {"model": name, "from": place.model, "parameters": {"num_ctx": place.num_ctx}, "stream": False}
            status, answer = self._ask("POST", "/api/create", client, json.dumps(order).encode())
        record = _record(answer)
        if status != 200 or record.get("status") != "success":
            raise UpstreamFailed(f"a context of {place.num_ctx} tokens could not be set up: {record.get('error', f'status {status}')}")


def _record(answer: bytes) -> dict:
    try:
        record = json.loads(answer)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
