"""llm with llm-ollama, which goes through ollama-python. It asks for the list of models whenever it is used."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.cases import EMBEDDER, MODEL, PIXEL, SCHEMA, Cases, failure

llm = pytest.importorskip("llm")
pytest.importorskip("llm_ollama")


class TestLlm(Cases):
    raises = busy_raises = "ResponseError"

    @pytest.fixture(autouse=True)
    def surroundings(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.environ = monkeypatch
        self.environ.setenv("LLM_USER_PATH", str(tmp_path))

    def model(self, url: str, name: str = f"{MODEL}:latest"):
        self.environ.setenv("OLLAMA_HOST", url)
        return llm.get_model(f"ollama/{name}")

    def chat(self, url: str, prompt: str) -> str:
        return self.model(url).prompt(prompt, stream=False).text()

    def stream(self, url: str, prompt: str) -> Iterator[str]:
        yield from self.model(url).prompt(prompt)

    def embed(self, url: str, text: str) -> list[float]:
        self.environ.setenv("OLLAMA_HOST", url)
        return llm.get_embedding_model(f"ollama/{EMBEDDER}:latest").embed(text)

    def call_tool(self, url: str, prompt: str) -> tuple[str, dict]:
        def weather(city: str) -> str:
            """The weather in a city"""
            raise AssertionError("only asked for")
        [call] = self.model(url).prompt(prompt, tools=[weather]).tool_calls()
        return call.name, call.arguments

    def look(self, url: str, prompt: str) -> str:
        return self.model(url).prompt(prompt, attachments=[llm.Attachment(content=base64.b64decode(PIXEL))]).text()

    def fill_in(self, url: str, prompt: str) -> dict:
        return json.loads(self.model(url).prompt(prompt, schema=SCHEMA).text())

    def models(self, url: str) -> list[str]:
        self.environ.setenv("OLLAMA_HOST", url)
        everything = [each.model.model_id for each in (*llm.get_models_with_aliases(), *llm.get_embedding_models_with_aliases())]
        return [name.removeprefix("ollama/") for name in everything]

    def test_missing_model(self, url: str) -> None:
        """It looks into the list and does not ask."""
        assert "nothere" in str(failure(lambda: self.model(url, "nothere")))
