"""openai-python: chat completions, and responses where they differ."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.compat.cases import EMBEDDER, MODEL, PIXEL, SCHEMA, WEATHER, Retrying

openai = pytest.importorskip("openai")
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


def ask(content: object) -> list[dict]:
    return [{"role": "user", "content": content}]


def client(url: str):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none")


class TestChat(Retrying):
    raises = "APIError"
    missing_raises = "NotFoundError"
    busy_raises = "InternalServerError"

    def chat(self, url: str, prompt: str, model: str = MODEL) -> str:
        return client(url).chat.completions.create(model=model, messages=ask(prompt)).choices[0].message.content

    def stream(self, url: str, prompt: str) -> Iterator[str]:
        options = {"include_usage": True}
        with client(url).chat.completions.create(model=MODEL, messages=ask(prompt), stream=True, stream_options=options) as chunks:
            for chunk in chunks:
                yield from (choice.delta.content or "" for choice in chunk.choices)

    def embed(self, url: str, text: str) -> list[float]:
        return client(url).embeddings.create(model=EMBEDDER, input=text).data[0].embedding

    def call_tool(self, url: str, prompt: str) -> tuple[str, dict]:
        tools = [{"type": "function", "function": WEATHER}]
        [call] = client(url).chat.completions.create(model=MODEL, messages=ask(prompt), tools=tools).choices[0].message.tool_calls
        return call.function.name, json.loads(call.function.arguments)

    def look(self, url: str, prompt: str) -> str:
        content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]
        return client(url).chat.completions.create(model=MODEL, messages=ask(content)).choices[0].message.content

    def fill_in(self, url: str, prompt: str) -> dict:
        return json.loads(client(url).chat.completions.create(model=MODEL, messages=ask(prompt), response_format=FORMAT).choices[0].message.content)

    def models(self, url: str) -> list[str]:
        return [model.id for model in client(url).models.list()]

    def test_request_id(self, url: str) -> None:
        """The library reads it off the answer, for whoever asks what became of a request."""
        assert client(url).chat.completions.create(model=MODEL, messages=ask("hi"))._request_id.startswith("req_")


class TestAsyncChat(TestChat):
    """Where it may differ: requests, streams and leaving."""

    def chat(self, url: str, prompt: str, model: str = MODEL) -> str:
        async def run() -> str:
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as async_client:
                return (await async_client.chat.completions.create(model=model, messages=ask(prompt))).choices[0].message.content
        return asyncio.run(run())

    def stream(self, url: str, prompt: str) -> Iterator[str]:
        with asyncio.Runner() as runner:
            async_client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
            chunks = runner.run(async_client.chat.completions.create(model=MODEL, messages=ask(prompt), stream=True))
            try:
                while chunk := runner.run(anext(chunks.__aiter__(), None)):
                    yield from (choice.delta.content or "" for choice in chunk.choices)
            finally:
                runner.run(chunks.close())

    test_embeddings = test_tool_call = test_image = test_structured_output = test_models = test_request_id = None


class TestResponses(TestChat):
    """/v1/responses, with the same library."""

    def chat(self, url: str, prompt: str, model: str = MODEL) -> str:
        return client(url).responses.create(model=model, input=prompt).output_text

    def stream(self, url: str, prompt: str) -> Iterator[str]:
        with client(url).responses.create(model=MODEL, input=prompt, stream=True) as events:
            for event in events:
                if event.type == "response.output_text.delta":
                    yield event.delta

    def call_tool(self, url: str, prompt: str) -> tuple[str, dict]:
        answer = client(url).responses.create(model=MODEL, input=prompt, tools=[{"type": "function", "strict": False, **WEATHER}])
        [call] = [item for item in answer.output if item.type == "function_call"]
        return call.name, json.loads(call.arguments)

    def look(self, url: str, prompt: str) -> str:
        content = [{"type": "input_text", "text": prompt}, {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"}]
        return client(url).responses.create(model=MODEL, input=ask(content)).output_text

    def fill_in(self, url: str, prompt: str) -> dict:
        form = {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}}
        return json.loads(client(url).responses.create(model=MODEL, input=prompt, text=form).output_text)

    test_embeddings = test_models = test_request_id = None
