"""Model names, as Ollama reads them. Pure; any process may use it.

    [scheme://][host/][namespace/]model[:tag][:source]

Ollama compares names without regard to case and fills in what is left out, so one model has many spellings.
Whatever groups calls by model (pools, caches, metrics) must group by `canonical`; an answer keeps the client's own
spelling, so nothing here is ever sent back.
"""

import re
from fnmatch import fnmatchcase
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

    Raises ValueError, in Ollama's words, for whatever Ollama would refuse; only surrounding spaces are forgiven.
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


def canonical_pattern(pattern: str) -> str:
    """A pattern of names, with Ollama's defaults filled in as in a name; `*` stands for any characters but "/".

    "*" alone is every model, "host.name/*" every model of a host; a `*` at the end stands for the tag as well, so that
    "llama3*" is every tag of every llama3. Raises ValueError("invalid model name") for what no name can match.
    """
    pattern = pattern.strip(" ")
    if "*" not in pattern:
        return canonical(pattern)
    *folders, model = re.sub(r"\*+", "*", pattern).split("/")
    if not folders and model == "*":
        return model
    if len(folders) == 1 and model == "*" and re.search("[.:]", folders[0]):
        folders.append("*")  # a namespace has neither dot nor colon, so this is a host
    folders = ["registry.ollama.ai", "library"][: max(0, 2 - len(folders))] + folders
    whole = "/".join([*folders, model if ":" in model or model.endswith("*") else f"{model}:latest"])
    canonical(whole.replace("*", "x"))
    return whole.lower()


def matches(name: str, pattern: str) -> bool:
    """Whether a canonical name is among those of a canonical pattern. Either has two slashes, so no `*` reaches across one."""
    return fnmatchcase(name, pattern)


def is_cloud(key: str) -> bool:
    """Does a canonical name ask for a model that runs at ollama.com (ollama-api.md §3.7)?"""
    tag = key.rpartition(":")[2]
    return tag == "cloud" or tag.endswith("-cloud")


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
        # Two sources. What is no name in any case is not repeated to anybody.
        raise ValueError(f'use either :local or :cloud, not both: "{name}"' if _NAME.fullmatch(base) else "invalid model name")
    if source == "local":
        return base
    return f"{base}-cloud" if own_tag else name
