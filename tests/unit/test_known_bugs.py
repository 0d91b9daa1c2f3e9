"""What other servers got wrong is read right here, or refused; and the same in whatever pieces it comes (reliability.md §2.1)."""

import random

import pytest

from tests.unit.streams import BUGS, NEXT, read_stream


def test_every_entry_of_the_list_is_here() -> None:
    numbers = {name.split()[0] for name, _, _ in BUGS if name.split()[0].isdigit()}
    assert numbers == {str(number) for number in range(1, 49)}
    assert len(NEXT) == 40 == 0x28, "what the lengths say"


@pytest.mark.parametrize(("stream", "statuses"), [bug[1:] for bug in BUGS], ids=[bug[0] for bug in BUGS])
def test_known_bug(stream: bytes, statuses: list[int]) -> None:
    found, end = whole = read_stream([stream])
    assert [200] * len(found) + [end] * isinstance(end, int) == statuses
    assert all(request.path == "/livez" and b"evil" not in body for request, body in found)
    assert read_stream([stream[at:at + 1] for at in range(len(stream))]) == whole, "byte by byte"
    for cut in range(1, len(stream)):
        assert read_stream([stream[:cut], stream[cut:]]) == whole, cut
    draw = random.Random(len(stream))
    for _ in range(5):
        cuts = sorted(draw.sample(range(len(stream)), 6))
        assert read_stream([stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)]) if a < b]) == whole


def test_what_is_kept_of_a_value() -> None:
    stream = next(stream for name, stream, _ in BUGS if name.startswith("41 "))
    assert read_stream([stream])[0][0][0].headers["user"] == "\x85admin\xa0"
