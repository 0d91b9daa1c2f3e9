"""The libraries for JavaScript, driven through node. The modules are those of HERMES_COMPAT_NODE, a folder with `node_modules` in it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.compat.cases import EMBEDDER, MODEL, PIXEL, SCHEMA, TOKENS, WEATHER, Cases, Retrying

SCRIPTS = Path(__file__).parent / "node"
MODULES = Path(os.environ.get("HERMES_COMPAT_NODE") or ".", "node_modules").resolve()
PATIENCE = 60               # seconds for a script


class NodeError(Exception):
    """What a script threw: `name` is the class's."""

    def __init__(self, name: str, text: str):
        super().__init__(text)
        self.name = name


class Node:
    """A client in JavaScript. `script` says which, `package` what it needs."""

    script = package = ""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        """A copy of the scripts beside the modules, because an import looks for modules where the script is."""
        if "HERMES_COMPAT_NODE" not in os.environ or not shutil.which("node") or not (MODULES / self.package).is_dir():
            pytest.skip(f"needs node, and {self.package} where HERMES_COMPAT_NODE says")
        self.folder = shutil.copytree(SCRIPTS, tmp_path / "node")
        (self.folder / "node_modules").symlink_to(MODULES)

    @contextmanager
    def node(self, case: str, url: str, prompt: str, model: str) -> Iterator[subprocess.Popen]:
        given = {"url": url, "model": model, "prompt": prompt, "image": PIXEL, "schema": SCHEMA, "weather": WEATHER, "tokens": TOKENS}
        command = ["node", "run.mjs", self.script, case, json.dumps(given)]
        with subprocess.Popen(command, cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            yield process
            process.stdin.close()
            process.wait(PATIENCE)

    def run(self, case: str, url: str, prompt: str = "", model: str = MODEL):
        with self.node(case, url, prompt, model) as process:
            return read(process.stdout.readline())["result"]

    def chat(self, url: str, prompt: str, model: str = MODEL) -> str:
        return self.run("chat", url, prompt, model)

    def stream(self, url: str, prompt: str) -> Iterator[str]:
        with self.node("stream", url, prompt, MODEL) as process:
            for line in process.stdout:
                yield read(line)["piece"]

    @contextmanager
    def left(self, url: str, prompt: str) -> Iterator[None]:
        with self.node("stream", url, prompt, MODEL) as process:
            assert "piece" in read(process.stdout.readline())
            process.stdin.write(b"abort\n")
            process.stdin.flush()
            yield
            assert process.poll() is None, "it is the library that left, and not the process that ended"

    def embed(self, url: str, text: str) -> list[float]:
        return self.run("embed", url, text, EMBEDDER)

    def call_tool(self, url: str, prompt: str) -> tuple[str, dict]:
        return tuple(self.run("tool", url, prompt))

    def look(self, url: str, prompt: str) -> str:
        return self.run("look", url, prompt)

    def fill_in(self, url: str, prompt: str) -> dict:
        return self.run("fill", url, prompt)

    def models(self, url: str) -> list[str]:
        return self.run("models", url)


def read(line: bytes) -> dict:
    """A script's record; raises NodeError if it is an error, or no record."""
    record = json.loads(line) if line else {"error": {"type": "nothing", "message": "the script said nothing"}}
    if "error" in record:
        raise NodeError(record["error"]["type"], f"{record['error']['message']}\n{record['error'].get('body', '')}")
    return record


class TestOllamaJs(Node, Cases):
    script = package = "ollama"
    missing_raises = busy_raises = "ResponseError"
    raises = "Error"


class TestOpenAIJs(Node, Retrying):
    script = package = "openai"
    raises = "APIError"
    missing_raises = "NotFoundError"
    busy_raises = "InternalServerError"


class TestAnthropicJs(Node, Retrying):
    script, package = "anthropic", "@anthropic-ai/sdk"
    raises = "APIError"
    missing_raises = "NotFoundError"
    busy_raises = "ServiceUnavailableError"
    test_embeddings = test_structured_output = None     # Ollama has none under /v1/messages


class TestAiSdkOllama(Node, Retrying):
    """It passes over the error in the stream; what it notices is that the stream has no proper end. Of an error it shows the status only, and has
    the words in `responseBody`."""

    script, package = "ai-ollama", "ollama-ai-provider-v2"
    raises, words = "TypeError", "terminated"
    missing_raises = "APICallError"
    busy_raises = "RetryError"
    test_models = None      # it lists none


class TestAiSdkOpenAI(Node, Retrying):
    """What is in the stream's error part is Hermes's own object."""

    script, package = "ai-openai", "@ai-sdk/openai-compatible"
    raises = "Object"
    missing_raises = "APICallError"
    busy_raises = "RetryError"
    test_models = None      # it lists none
