"""Fixtures of the compatibility suite: the stand-in, a Hermes in front of it, and one whose queue is full."""

from collections.abc import Iterator

import pytest

from hermes.simulator import SimModel, Simulator
from tests.compat.cases import DIMENSIONS, EMBEDDER, MODEL, TOKENS, Full
from tests.harness import Hermes, eventually


@pytest.fixture(scope="session")
def ollama() -> Iterator[Simulator]:
    able = SimModel(f"{MODEL}:latest", capabilities=("completion", "tools", "vision"))
    embedder = SimModel(f"{EMBEDDER}:latest", 46_226_644, ("embedding",), family="bert", embedding=DIMENSIONS)
    with Simulator([able, embedder], tokens=TOKENS, parallel=4) as simulator:
        yield simulator


@pytest.fixture(scope="session")
def url(ollama: Simulator) -> Iterator[str]:
    with Hermes(ollama.url, f'[models."{MODEL}"]\nmax_concurrency = 2\n') as hermes:
        eventually(lambda: hermes.staffed(MODEL))
        yield f"http://127.0.0.1:{hermes.port}"


@pytest.fixture
def full(ollama: Simulator) -> Iterator[Full]:
    with Hermes(ollama.url, f'[models."{MODEL}"]\nmax_concurrency = 1\nmax_queue = 1\n') as hermes:
        eventually(lambda: hermes.staffed(MODEL))
        held = Full(hermes)
        yield held
        held.free()
