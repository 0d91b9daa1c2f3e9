"""The models of the stand-in: what is installed, and how names are read (ollama-api.md §3.6)."""

import re
import time
from dataclasses import dataclass
from hashlib import sha256

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
_PART = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,79}")
_HOST_PART = re.compile(r"[a-z0-9_][a-z0-9_.:-]*")
_MAX_HOST = 350


@dataclass(frozen=True)
class SimModel:
    """An installed model. `context` is what a runner of it gets, `trained_context` what the file says."""

    name: str
    size: int = 98_362_745
    capabilities: tuple[str, ...] = ("completion",)
    family: str = "llama"
    parameter_size: str = "134.52M"
    quantization: str = "Q4_1"
    context: int = 4096
    trained_context: int = 8192
    embedding: int = 576
    load_time: float | None = None
    options: tuple[tuple[str, object], ...] = ()
    """Parameters of its own, as a Modelfile gives them; a request's options come before them (ollama-api.md §1.13)."""
    modified_ns: int = 1_795_390_013_770_921_345

    @property
    def embeds_only(self) -> bool:
        """Whether the model makes embeddings and nothing else."""
        return "embedding" in self.capabilities and "completion" not in self.capabilities

    @property
    def digest(self) -> str:
        """A digest that depends on the name alone."""
        return sha256(self.name.encode("utf-8")).hexdigest()

    def details(self) -> dict[str, object]:
        """The `details` object of tags, ps and show."""
        return {
            "parent_model": "",
            "format": "gguf",
            "family": self.family,
            "families": [self.family],
            "parameter_size": self.parameter_size,
            "quantization_level": self.quantization,
        }


def default_models() -> tuple[SimModel, ...]:
    """The three models of the recordings."""
    return (
        SimModel("gemma3:270m", 291_554_930, family="gemma3", parameter_size="268.10M", quantization="Q8_0",
                 trained_context=32768, embedding=640),
        SimModel("smollm2:135m"),
        SimModel("all-minilm:latest", 46_226_644, ("embedding",), family="bert", parameter_size="22.57M",
                 quantization="F16", trained_context=512, embedding=384),
    )


@dataclass(frozen=True)
class Name:
    """A model name, every part spelled out, in lower case."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def full(self) -> str:
        """As in the text `… does not support tools`."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def short(self) -> str:
        """As listed: the tag always, host and namespace only when not the default."""
        if self.host != _HOST:
            return self.full
        if self.namespace != _NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def cloud(self) -> bool:
        """Whether the name asks for a model that runs at ollama.com (ollama-api.md §3.7)."""
        return self.tag == "cloud" or self.tag.endswith("-cloud")


def parse_name(text: str) -> Name | None:
    """The name a client sent, or None if it is malformed."""
    text = re.sub(r"^[a-z]+://", "", text.strip().lower())
    path, inner, last = text.rpartition("/")
    model, colon, tag = last.partition(":")
    if not colon or tag == "local":
        tag = _TAG
    host, slash, namespace = path.rpartition("/")
    if not inner:
        namespace = _NAMESPACE
    if not slash:
        host = _HOST
    if not all(_PART.fullmatch(part) for part in (model, tag, namespace)) or "." in namespace:
        return None
    if len(host) > _MAX_HOST or not _HOST_PART.fullmatch(host):
        return None
    return Name(host, namespace, model, tag)


def canonical(text: str) -> str:
    """The listed form of a name; an unreadable name stays as it is."""
    name = parse_name(text)
    return name.short if name else text


class Library:
    """What is installed. Every handler thread reads it, without a lock, for a change is the assignment of a new dict.

    Those who change it (a test, a pull, a copy, a delete) hold the ledger's condition.
    """

    def __init__(self, models: tuple[SimModel, ...]) -> None:
        self._models = {canonical(model.name): model for model in models}

    def find(self, short: str) -> SimModel | None:
        """The model with this listed name."""
        return self._models.get(short)

    def newest_first(self) -> list[tuple[str, SimModel]]:
        """Listed names with their models, as tags lists them."""
        return sorted(reversed(self._models.items()), key=lambda item: -item[1].modified_ns)

    def install(self, short: str, model: SimModel | None = None) -> None:
        """Adds a model, or replaces it."""
        self._models = {**self._models, short: model or SimModel(short, modified_ns=time.time_ns())}

    def remove(self, short: str) -> None:
        """Forgets a model; a runner of it lives on (ollama-api.md §3.3)."""
        self._models = {name: model for name, model in self._models.items() if name != short}
