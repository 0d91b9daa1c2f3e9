"""A short storm. The long ones, and other seeds: `make chaos`."""

from tests.chaos.storm import Storm


def test_a_short_storm() -> None:
    book = Storm(seed=457, seconds=4).run()
    assert not book.complaints, "\n".join([*book.steps, *book.complaints])
    assert book.counts["stayed 200 whole"] > 5 and book.counts["step Ask"] > 50
