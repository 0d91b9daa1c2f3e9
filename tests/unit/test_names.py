"""Model names: every spelling Ollama takes for one model, and every one it refuses."""

import pytest

from hermes.names import canonical, same

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
        "x:local:cloud",
        "x:cloud:local",
        "x:cloud:cloud",
        "x:20b-cloud:cloud",
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


def test_same() -> None:
    assert same("Plain", "library/plain:latest")
    assert not same("plain", "plain:7b")
    assert not same("plain", "plain:cloud")
    with pytest.raises(ValueError, match="invalid model name"):
        same("plain", "")
