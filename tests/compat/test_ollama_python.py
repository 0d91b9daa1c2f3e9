"""ollama-python, both of its clients."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.compat.cases import EMBEDDER, MODEL, PIXEL, SCHEMA, WEATHER, Cases

ollama = pytest.importorskip("ollama")
TOOL = {"type": "function", "function": WEATHER}


def ask(prompt: str, **more: object) -> list[dict]:
    return [{"role": "user", "content": prompt, **more}]


class TestOllama(Cases):
    raises = missing_raises = busy_raises = "ResponseError"

    def chat(self, url: str, prompt: str, model: str = MODEL) -> str:
        return ollama.Client(url).chat(model, ask(prompt)).message.content

    def stream(self, url: str, prompt: str) -> Iterator[str]:
        for part in ollama.Client(url).chat(MODEL, ask(prompt), stream=True):
            yield part.message.content

    def embed(self, url: str, text: str) -> list[float]:
        return list(ollama.Client(url).embed(EMBEDDER, text).embeddings[0])

    def call_tool(self, url: str, prompt: str) -> tuple[str, dict]:
        [call] = ollama.Client(url).chat(MODEL, ask(prompt), tools=[TOOL]).message.tool_calls
        return call.function.name, dict(call.function.arguments)

    def look(self, url: str, prompt: str) -> str:
        return ollama.Client(url).chat(MODEL, ask(prompt, images=[PIXEL])).message.content

    def fill_in(self, url: str, prompt: str) -> dict:
        return json.loads(ollama.Client(url).chat(MODEL, ask(prompt), format=SCHEMA).message.content)

    def models(self, url: str) -> list[str]:
        return [model.model for model in ollama.Client(url).list().models]


class TestAsyncOllama(Cases):
    raises = missing_raises = busy_raises = "ResponseError"

    def chat(self, url: str, prompt: str, model: str = MODEL) -> str:
        return asyncio.run(ollama.AsyncClient(url).chat(model, ask(prompt))).message.content

    def stream(self, url: str, prompt: str) -> Iterator[str]:
        with asyncio.Runner() as runner:
            parts = runner.run(ollama.AsyncClient(url).chat(MODEL, ask(prompt), stream=True))
            try:
                while part := runner.run(anext(parts, None)):
                    yield part.message.content
            finally:
                runner.run(parts.aclose())

    def embed(self, url: str, text: str) -> list[float]:
        return list(asyncio.run(ollama.AsyncClient(url).embed(EMBEDDER, text)).embeddings[0])

    def call_tool(self, url: str, prompt: str) -> tuple[str, dict]:
        [call] = asyncio.run(ollama.AsyncClient(url).chat(MODEL, ask(prompt), tools=[TOOL])).message.tool_calls
        return call.function.name, dict(call.function.arguments)

    def look(self, url: str, prompt: str) -> str:
        return asyncio.run(ollama.AsyncClient(url).chat(MODEL, ask(prompt, images=[PIXEL]))).message.content

    def fill_in(self, url: str, prompt: str) -> dict:
        return json.loads(asyncio.run(ollama.AsyncClient(url).chat(MODEL, ask(prompt), format=SCHEMA)).message.content)

    def models(self, url: str) -> list[str]:
        return [model.model for model in asyncio.run(ollama.AsyncClient(url).list()).models]
