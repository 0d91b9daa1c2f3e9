"""litellm, by Ollama's own routes and by OpenAI's. It pins an openai of its own, so it is installed apart."""

import json
import os
from collections.abc import Iterator

import pytest

from tests.compat.cases import EMBEDDER, MODEL, PIXEL, SCHEMA, WEATHER, Cases, Retrying

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"     # else it asks the network for prices while it is imported
litellm = pytest.importorskip("litellm")
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


class Litellm:
    """`route` is what it puts before the model's name, `suffix` what is put behind the URL."""

    route = suffix = embeds = ""
    test_models = None      # it lists none

    def ask(self, url: str, content: object, model: str = MODEL, **more: object):
        messages = [{"role": "user", "content": content}]
        return litellm.completion(f"{self.route}/{model}", messages, api_base=url + self.suffix, api_key="none", **more)

    def chat(self, url: str, prompt: str, model: str = MODEL) -> str:
        return self.ask(url, prompt, model).choices[0].message.content

    def stream(self, url: str, prompt: str) -> Iterator[str]:
        chunks = self.ask(url, prompt, stream=True)
        try:
            for chunk in chunks:
                yield chunk.choices[0].delta.content or ""
        finally:                            # what it returns can only be closed in asyncio; what is beneath can
            getattr(chunks.completion_stream, "close", bool)()

    def embed(self, url: str, text: str) -> list[float]:
        return litellm.embedding(f"{self.embeds}/{EMBEDDER}", [text], api_base=url + self.suffix, api_key="none").data[0]["embedding"]

    def call_tool(self, url: str, prompt: str) -> tuple[str, dict]:
        [call] = self.ask(url, prompt, tools=[{"type": "function", "function": WEATHER}]).choices[0].message.tool_calls
        return call.function.name, json.loads(call.function.arguments)

    def look(self, url: str, prompt: str) -> str:
        content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]
        return self.ask(url, content).choices[0].message.content

    def fill_in(self, url: str, prompt: str) -> dict:
        return json.loads(self.ask(url, prompt, response_format=FORMAT).choices[0].message.content)


class TestOllamaChat(Litellm, Cases):
    route, embeds = "ollama_chat", "ollama"
    raises = missing_raises = busy_raises = "APIError"


class TestOpenAI(Litellm, Retrying):
    route = embeds = "openai"
    suffix = "/v1"
    raises = missing_raises = busy_raises = "APIError"
