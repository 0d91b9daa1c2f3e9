"""Which names reach which pool, and what a reload leaves alone."""

import pytest

from hermes import config
from hermes.dispatch.registry import Registry
from hermes.dispatch.shares import Claim
from hermes.errors import Draining
from hermes.names import canonical
from tests.unit.fakes import hire


def settings(text: str = ""):
    return config.loads(text, "test", {})


def models(*names: str) -> str:
    return "".join(f'[models."{name}"]\nmax_concurrency = 2\n' for name in names)


@pytest.fixture
def registry() -> Registry:
    return Registry(settings(models("a", "b")), lambda pool: None, lambda: None)


def test_find(registry: Registry) -> None:
    assert registry.find(canonical("a")) is registry.find(canonical("library/A:latest"))
    assert registry.find(canonical("nobody")) is None
    adopted = registry.adopt("c")
    assert registry.adopt("C:latest") is adopted is registry.find(canonical("c"))
    assert [picture.name for picture in registry.snapshots()] == ["a", "b", "c"]


@pytest.mark.parametrize("guest", ["pull", "on demand", "both"])
def test_reload_while_there_are_guests(registry: Registry, guest: str) -> None:
    """A pool for pulls has no model's name; a reload must get past it, and a pull that runs keeps its pool."""
    pull = registry.puller() if guest != "on demand" else None
    adopted = registry.adopt("c") if guest != "pull" else None
    kept, gone = registry.find(canonical("a")).pool, registry.find(canonical("b")).pool
    registry.apply(settings(models("a", "d")))
    assert registry.find(canonical("a")).pool is kept and kept.size == 2
    assert gone.size == 0 and registry.find(canonical("b")) is None and registry.find(canonical("d")) is not None
    if pull:
        assert pull.pool.size > 0 and registry.puller().pool is pull.pool
    if adopted:
        assert registry.find(canonical("c")).pool is adopted.pool


def test_a_model_named_like_a_pool_of_ours(registry: Registry) -> None:
    registry.puller()
    text = models("pull", "control")
    for _ in range(2):
        registry.apply(settings(text))
    place = registry.find(canonical("pull"))
    assert place.model == "pull" and place.pool is not registry.puller().pool and place.pool.size == 2
    assert registry.find(canonical("control")).pool is not registry.control.pool


@pytest.mark.parametrize(("text", "counts"), [(models("a", "b"), "b"), ("", "control")])
def test_staffed(text: str, counts: str, new_child) -> None:
    """By a worker of any model; by one of control only where there is no model."""
    registry = Registry(settings(text), lambda pool: None, lambda: None)
    pools = {"control": registry.control.pool, "pull": registry.puller().pool, **{name: registry.find(canonical(name)).pool for name in "ab" if text}}
    wanted = pools.pop(counts)
    for pool in pools.values():
        if pool.name != "a":
            pool.offer(new_child())
    assert not registry.staffed()
    wanted.offer(new_child())
    assert registry.staffed()


def test_a_model_that_is_found_during_a_reload_has_the_new_defaults(registry: Registry) -> None:
    """It would keep the old ones until the next."""
    class Door:
        """The lock, of which somebody else has been quicker."""

        def __enter__(self) -> None:
            registry._lock = lock
            registry.apply(settings("[defaults]\nmax_concurrency = 7\n"))
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    lock, registry._lock = registry._lock, Door()
    assert registry.adopt("c").pool.size == 7


def test_sweep(registry: Registry) -> None:
    pool = registry.adopt("c").pool
    since = pool.snapshot().idle_since
    assert registry.sweep(since + 1) == since + 300
    assert registry.sweep(since + 301) == float("inf")
    assert registry.find(canonical("c")) is None and pool.size == 0 and registry.find(canonical("a")) is not None


def test_who_has_found_a_pool_that_is_swept_then_may_still_wait_there(registry: Registry) -> None:
    pool = registry.adopt("c").pool
    registry.sweep(pool.snapshot().idle_since + 301)
    ticket = pool.enter(Claim(), 60.0)
    assert pool.size == 1 and not pool.ended(), "a worker is wanted"
    pool.leave(ticket)
    assert pool.size == 0 and pool.ended()


def test_a_paused_pool_is_not_swept(registry: Registry) -> None:
    """Its successor would serve at once."""
    pool = registry.adopt("c").pool
    since = pool.snapshot().idle_since
    pool.pause(True)
    assert registry.sweep(since + 301) == since + 601 and registry.find(canonical("c")).pool is pool
    pool.pause(False)
    assert registry.sweep(pool.snapshot().idle_since + 301) == float("inf")


@pytest.mark.parametrize("text", [models("a"), models("a") + '[models.b]\nmodel = "other"\n'])
def test_what_runs_in_a_pool_that_is_being_retired_is_seen_until_it_ends(registry: Registry, text: str, new_child, new_pair) -> None:
    """Else Hermes would stop over it, and its client would not be told."""
    pool, child = registry.find(canonical("b")).pool, new_child()
    pool.offer(child)
    hire(pool, new_pair()[0], 1.0)
    registry.apply(settings(text))
    assert pool.size == 0 and registry.busy() and registry.leased() == [child]
    assert pool not in [place.pool for place in (registry.find(canonical("a")), registry.find(canonical("b"))) if place]
    registry.refuse(Draining("going"))
    assert isinstance(pool.refusal, Draining)
    pool.release(child, reusable=True)
    assert not registry.busy() and registry.leased() == []


class TestAModelThatLosesItsNameWhileItRuns:
    """It is one model at Ollama, so who runs under the old name and who comes under the new one share the workers."""

    @pytest.fixture
    def busy(self, registry: Registry, new_child, new_pair):
        """The pool of b, with a call in it."""
        pool, child = registry.find(canonical("b")).pool, new_child()
        pool.offer(child)
        hire(pool, new_pair()[0], 1.0)
        return pool

    def test_unlisted(self, registry: Registry, busy) -> None:
        registry.apply(settings(models("a") + "[defaults]\nmax_concurrency = 3\nmax_queue = 7\nmax_starvation = 5\n"))
        assert busy.size == 0 and registry.find(canonical("b")) is None
        place = registry.adopt("B")
        assert place.pool is busy and (busy.name, busy.size, busy.on_demand, busy.label) == ("B", 3, True, "model 'B'")
        assert busy.snapshot().queue_limit == 7
        assert [picture.name for picture in registry.snapshots()] == ["a", "B"] and len(registry.leased()) == 1

    def test_listed_by_another_name_and_listed_again(self, registry: Registry, busy) -> None:
        registry.apply(settings(models("a") + '[models.other]\nmodel = "b"\n'))
        assert registry.find(canonical("other")).pool is registry.find(canonical("b")).pool is busy
        assert (busy.name, busy.size, busy.on_demand) == ("other", 1, False)
        registry.apply(settings(models("a")))
        registry.adopt("b")
        registry.apply(settings(models("a", "b")))
        assert registry.find(canonical("b")).pool is busy and (busy.name, busy.size, busy.on_demand) == ("b", 2, False)

    def test_what_is_in_use_is_not_given_away(self, registry: Registry, busy) -> None:
        assert busy.revive("c", 5, 5) is False and (busy.name, busy.size) == ("b", 2)

    def test_a_pool_that_has_ended_does_not_come_back(self, registry: Registry) -> None:
        """Nobody watches over it any more."""
        pool = registry.find(canonical("b")).pool
        registry.apply(settings(models("a")))
        assert pool.ended()
        assert registry.adopt("b").pool is not pool and pool.size == 0 and pool.ended()


def test_refuse_reaches_pools_that_come_later(registry: Registry) -> None:
    registry.refuse(Draining("going"))
    for place in (registry.find(canonical("a")), registry.control, registry.adopt("z"), registry.puller()):
        with pytest.raises(Draining):
            hire(place.pool, None, 0)
