"""Model names: every spelling Ollama takes for one model, and every one it refuses."""

import pytest

from hermes.names import canonical, canonical_pattern, is_cloud, matches, same

PLAIN = "registry.ollama.ai/library/plain:latest"


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "PLAIN",
        "plain:LATEST",
        "library/plain",
        "registry.ollama.ai/library/plain:latest",
        "http://registry.ollama.ai/library/plain",
        "https://Registry.Ollama.AI/Library/plain:latest",
        " plain ",
        "plain:local",
        "plain:latest:LOCAL",
    ],
)
def test_one_model_many_spellings(name: str) -> None:
    assert canonical(name) == PLAIN


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama3.2:1b", "registry.ollama.ai/library/llama3.2:1b"),
        ("me/My-Model_2", "registry.ollama.ai/me/my-model_2:latest"),
        ("hf.co/bartowski/Llama-3.2-3B:Q4_K_M", "hf.co/bartowski/llama-3.2-3b:q4_k_m"),
        ("localhost:5000/lib/m:t", "localhost:5000/lib/m:t"),
        ("http://localhost:5000/lib/m", "localhost:5000/lib/m:latest"),
        ("_m", "registry.ollama.ai/library/_m:latest"),
        ("gpt-oss:cloud", "registry.ollama.ai/library/gpt-oss:cloud"),
        ("gpt-oss:20b-cloud", "registry.ollama.ai/library/gpt-oss:20b-cloud"),
        ("gpt-oss:20b:cloud", "registry.ollama.ai/library/gpt-oss:20b-cloud"),
        ("gpt-oss:20b:local", "registry.ollama.ai/library/gpt-oss:20b"),
        ("localhost:5000/lib/m:cloud", "localhost:5000/lib/m:cloud"),
        ("localhost:5000/lib/m:local", "localhost:5000/lib/m:latest"),
        ("local", "registry.ollama.ai/library/local:latest"),
        ("m" * 80 + ":" + "t" * 80, "registry.ollama.ai/library/" + "m" * 80 + ":" + "t" * 80),
        ("h" * 350 + "/n/m", "h" * 350 + "/n/m:latest"),
    ],
)
def test_canonical(name: str, expected: str) -> None:
    assert canonical(name) == expected
    assert canonical(expected) == expected, "canonical is its own canonical form"


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ":",
        ":latest",
        ":local",
        "plain:",
        "plain::local",
        "/plain",
        "plain/",
        "a//b",
        "a/b/c/d",
        "pl ain",
        "plain :latest",
        "plain@sha256:abc",
        "plain@sha256",
        "a:b:c",
        "no name:local:cloud",
        "m" * 81 + ":local:cloud",
        "a/b/c/d:cloud:cloud",
        ".plain",
        "-plain",
        "plain:.t",
        "dotted.namespace/plain",
        "http://plain",
        "://h/n/m",
        "plain\n",
        "\tplain",
        "pl\x00ain",
        "plain\x7f",
        "plaın",
        "\u212aelvin",
        "м",
        "m" * 81,
        "m:" + "t" * 81,
        "n" * 81 + "/m",
        "h" * 351 + "/n/m",
        "m?x=1",
        "m#x",
        "m%2F",
        "..",
        "../etc/passwd",
    ],
)
def test_malformed(name: str) -> None:
    with pytest.raises(ValueError, match="^invalid model name$"):
        canonical(name)


@pytest.mark.parametrize("name", ["x:local:cloud", "x:cloud:local", "x:cloud:cloud", "x:20b-cloud:cloud", "hf.co/u/X:LOCAL:Cloud"])
def test_two_sources_are_refused_with_ollamas_own_text(name: str) -> None:
    with pytest.raises(ValueError) as caught:
        canonical(f" {name} ")
    assert str(caught.value) == f'use either :local or :cloud, not both: "{name}"'


@pytest.mark.parametrize(
    ("name", "cloud"),
    [
        ("gpt-oss:cloud", True),
        ("GPT-OSS:Cloud", True),
        ("gpt-oss:20b-cloud", True),
        ("gpt-oss:20b:cloud", True),
        ("registry.ollama.ai/library/gpt-oss:cloud", True),
        ("hf.co/user/repo:cloud", True),
        ("gpt-oss", False),
        ("gpt-oss:local", False),
        ("gpt-oss:20bcloud", False),
        ("cloud", False),
        ("me/x-cloud", False),
        ("cloud/cloud:cloudy", False),
    ],
)
def test_is_cloud(name: str, cloud: bool) -> None:
    assert is_cloud(canonical(name)) is cloud


def test_same() -> None:
    assert same("Plain", "library/plain:latest")
    assert not same("plain", "plain:7b")
    assert not same("plain", "plain:cloud")
    with pytest.raises(ValueError, match="invalid model name"):
        same("plain", "")


# -- patterns of names


@pytest.mark.parametrize(("pattern", "whole"), [
    ("*", "*"), (" * ", "*"), ("**", "*"), ("gemma3", "registry.ollama.ai/library/gemma3:latest"), ("Gemma3:270M", "registry.ollama.ai/library/gemma3:270m"),
    ("gemma3*", "registry.ollama.ai/library/gemma3*"), ("gemma3:*", "registry.ollama.ai/library/gemma3:*"), ("*gemma", "registry.ollama.ai/library/*gemma:latest"),
    ("*:1b", "registry.ollama.ai/library/*:1b"), ("g**a", "registry.ollama.ai/library/g*a:latest"), ("me/*", "registry.ollama.ai/me/*"), ("me/a*b", "registry.ollama.ai/me/a*b:latest"),
    ("*/m", "registry.ollama.ai/*/m:latest"), ("HF.co/*", "hf.co/*/*"), ("hf.co/u/*", "hf.co/u/*"), ("box:5000/*", "box:5000/*/*"), ("*/*/*", "*/*/*"),
    ("m:local", "registry.ollama.ai/library/m:latest"),
])
def test_patterns(pattern: str, whole: str) -> None:
    assert canonical_pattern(pattern) == whole == canonical_pattern(whole)


@pytest.mark.parametrize("pattern", ["", " ", "a b", "a b*", "/", "*/", "/*", "a/b/c/*", "hf.co/m*", "hf.co/m", "a?*", "[a]*", "é*", "\u212a*", "a:b:c:*", "..*/x/y", "a\n*"])
def test_patterns_of_no_name(pattern: str) -> None:
    with pytest.raises(ValueError, match="invalid model name"):
        canonical_pattern(pattern)


@pytest.mark.parametrize(("pattern", "names", "others"), [
    ("*", ["m", "me/m", "hf.co/u/r"], []),
    ("gemma3", ["gemma3", "GEMMA3:latest", "library/gemma3"], ["gemma3:1b", "gemma", "me/gemma3", "evil.example/library/gemma3"]),
    ("gemma*", ["gemma", "gemma3:270m", "gemma3:latest"], ["me/gemma", "gemma.evil.example/u/r", "gemma/x", "gemma/x/y", "agemma"]),
    ("gemma3:*", ["gemma3", "gemma3:1b"], ["gemma3n", "gemma3n:1b"]),
    ("hf.co/*", ["hf.co/u/r", "hf.co/u/r:q4"], ["m", "hf.co.evil.example/u/r", "u/r"]),
    ("me/*", ["me/m", "me/m:1b"], ["m", "me.x/a/b", "me/a/b", "you/m"]),
    ("*:1b", ["m:1b"], ["m", "m:11b", "me/m:1b"]),
])
def test_what_a_pattern_matches(pattern: str, names: list[str], others: list[str]) -> None:
    whole = canonical_pattern(pattern)
    assert all(matches(canonical(name), whole) for name in names)
    assert not [name for name in others if matches(canonical(name), whole)]
