"""Model names, as Ollama reads them. Pure; any process may use it.

    [scheme://][host/][namespace/]model[:tag][:source]

Ollama compares names without regard to case and fills in what is left out, so one model has many spellings.
Whatever groups calls by model (pools, caches, metrics) must group by `canonical`; an answer keeps the client's own
spelling, so nothing here is ever sent back.
"""

import re
from functools import lru_cache

# ASCII classes spelt out: with IGNORECASE a Kelvin sign would pass for a "k", and Ollama does not take it for one.
_NAME = re.compile(
    r"(?:"
    r"(?:(?:[A-Za-z][A-Za-z0-9+.-]*://)?(?P<host>[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349})/)?"
    r"(?P<namespace>[A-Za-z0-9_][A-Za-z0-9_-]{0,79})/)?"
    r"(?P<model>[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}))?"
)


@lru_cache(maxsize=1024)
def canonical(name: str) -> str:
    """Lower-case "host/namespace/model:tag" with Ollama's defaults filled in.

    Raises ValueError("invalid model name") for whatever Ollama would refuse; only surrounding spaces are forgiven.
    """
    match = _NAME.fullmatch(_without_source(name.strip(" ")))
    if match is None:
        raise ValueError("invalid model name")
    host = match["host"] or "registry.ollama.ai"
    namespace = match["namespace"] or "library"
    return f"{host}/{namespace}/{match['model']}:{match['tag'] or 'latest'}".lower()


def same(a: str, b: str) -> bool:
    """Whether two spellings mean one model. Raises ValueError when either is malformed."""
    return canonical(a) == canonical(b)


def _without_source(name: str) -> str:
    """Fold the source suffix away: "m:local" is m itself, "m:20b:cloud" is "m:20b-cloud"; "m:cloud" stays a tag.

    Ollama runs "m" and "m:local" in one runner, so two pools for them would exceed max_concurrency.
    """
    base, _, suffix = name.rpartition(":")
    source = suffix.lower()
    if source not in ("local", "cloud") or not base:
        return name
    _, own_tag, tag = base.rpartition("/")[2].partition(":")
    if tag.lower() in ("local", "cloud") or tag.lower().endswith("-cloud"):
        raise ValueError("invalid model name")  # two sources; Ollama answers 400 as well
    if source == "local":
        return base
    return f"{base}-cloud" if own_tag else name
