"""Good requests with something wrong with them: refused or read, the same in whatever pieces they come, and never two out of one.

The seeds are fixed: each run tries the same ones. `make faults` tries twenty times as many.
"""

import random
import time

import pytest

from tests.harness import FAULTS
from tests.unit.mutations import mutated
from tests.unit.streams import read_stream

ROUNDS = 20
TRIES = 5_000 if FAULTS else 250            # in each round


def pieces_of(stream: bytes, draw: random.Random) -> list[bytes]:
    cuts = sorted(draw.randrange(len(stream) + 1) for _ in range(draw.randint(1, 8)))
    return [piece for a, b in zip([0, *cuts], [*cuts, len(stream)]) if (piece := stream[a:b])]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_mutations(seed: int) -> None:
    draw = random.Random(seed)
    ends: dict[object, int] = {}
    began = time.process_time()
    for _ in range(TRIES):
        stream = mutated(draw)
        found, end = whole = read_stream([stream])
        assert read_stream([stream[at:at + 1] for at in range(len(stream))]) == whole, stream
        assert read_stream(pieces_of(stream, draw)) == whole, stream
        assert len(found) <= stream.count(b" HTTP/1."), stream
        assert sum(len(body) for _, body in found) <= len(stream), stream
        assert all(request.path[0] in "/*" and b"%s " % request.method.encode() in stream for request, _ in found), stream
        ends[end] = ends.get(end, 0) + 1
    assert time.process_time() - began < TRIES / 100, "10 ms for a stream of some hundred bytes, three times"
    # Mutations that all end at the same check would try nothing else.
    assert {"", "more", "closed", 400, 501, 505} <= set(ends) and 0.2 < ends[400] / TRIES < 0.8, ends
