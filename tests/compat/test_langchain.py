"""langchain-ollama, which goes through ollama-python."""

from collections.abc import Iterator

import pytest

from tests.compat.cases import EMBEDDER, MODEL, PIXEL, SCHEMA, WEATHER, Cases

langchain_ollama = pytest.importorskip("langchain_ollama")


def model(url: str, name: str = MODEL):
    return langchain_ollama.ChatOllama(model=name, base_url=url)


class TestLangchain(Cases):
    raises = missing_raises = busy_raises = "ResponseError"
    test_models = None      # it lists none

    def chat(self, url: str, prompt: str, name: str = MODEL) -> str:
        return model(url, name).invoke(prompt).content

    def stream(self, url: str, prompt: str) -> Iterator[str]:
        for chunk in model(url).stream(prompt):
            yield chunk.content

    def embed(self, url: str, text: str) -> list[float]:
        return langchain_ollama.OllamaEmbeddings(model=EMBEDDER, base_url=url).embed_query(text)

    def call_tool(self, url: str, prompt: str) -> tuple[str, dict]:
        [call] = model(url).bind_tools([{"type": "function", "function": WEATHER}]).invoke(prompt).tool_calls
        return call["name"], call["args"]

    def look(self, url: str, prompt: str) -> str:
        content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": f"data:image/png;base64,{PIXEL}"}]
        return model(url).invoke([("user", content)]).content

    def fill_in(self, url: str, prompt: str) -> dict:
        return model(url).with_structured_output({"title": "answer", **SCHEMA}, method="json_schema").invoke(prompt)
