"""anthropic-python. Ollama has no embeddings and no structured output under /v1/messages."""

from collections.abc import Iterator

import pytest

from tests.compat.cases import MODEL, PIXEL, TOKENS, WEATHER, Retrying

anthropic = pytest.importorskip("anthropic")


def ask(content: object, model: str = MODEL) -> dict:
    """The stand-in says as much as it may."""
    limit = 1000 if "@@" in content else TOKENS
    return {"model": model, "max_tokens": limit, "messages": [{"role": "user", "content": content}]}


def client(url: str):
    return anthropic.Anthropic(base_url=url, api_key="none")


class TestAnthropic(Retrying):
    raises = "APIStatusError"
    missing_raises = "NotFoundError"
    busy_raises = "ServiceUnavailableError"

    def chat(self, url: str, prompt: str, model: str = MODEL) -> str:
        return client(url).messages.create(**ask(prompt, model)).content[0].text

    def stream(self, url: str, prompt: str) -> Iterator[str]:
        with client(url).messages.stream(**ask(prompt)) as events:
            yield from events.text_stream

    def call_tool(self, url: str, prompt: str) -> tuple[str, dict]:
        tool = {"name": WEATHER["name"], "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}
        [call] = [block for block in client(url).messages.create(**ask(prompt), tools=[tool]).content if block.type == "tool_use"]
        return call.name, call.input

    def look(self, url: str, prompt: str) -> str:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
        return client(url).messages.create(**ask([image, {"type": "text", "text": prompt}])).content[0].text

    def models(self, url: str) -> list[str]:
        return [model.id for model in client(url).models.list()]

    test_embeddings = test_structured_output = None

    def test_request_id(self, url: str) -> None:
        assert client(url).messages.create(**ask("hi"))._request_id.startswith("req_")
