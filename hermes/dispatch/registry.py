"""Which names reach which pool. Its maps are immutable and replaced in one assignment; changes are made under its lock.

Configured models have a pool from the start. A model that Ollama has but nobody listed gets one on demand, with the defaults, and loses
it after `dismiss_after` seconds without a call. A name that Ollama does not have gets nothing at all (design.md, unlisted models).
"""

import math
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import NamedTuple
from weakref import WeakSet

from hermes.config import CLASSES, Config, DefaultSettings, ModelSettings
from hermes.config.options import Bounds
from hermes.dispatch.caps import Caps
from hermes.dispatch.pool import Pool, PoolSnapshot
from hermes.errors import HermesError
from hermes.names import canonical, is_cloud, same

CONTROL_WORKERS = 2         # for calls without a model; they are short
CONTROL_QUEUE = 256
CONTROL_PATIENCE = 10.0     # seconds
PULL_WORKERS = 4            # pulls, pushes, creations and uploads at once; each may take an hour
PULL_QUEUE = 16


class Guards(NamedTuple):
    """What one call of a model may take: tokens of an answer (0 = no limit), seconds at a worker, seconds that it keeps the model loaded, and
    what it may say for the options."""

    max_output_tokens: int = 0
    max_run_time: float = math.inf
    max_keep_alive: float = math.inf
    bounds: Bounds = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job is done: the pool, the name Ollama knows the model by, how many seconds a call waits for its turn, and how Ollama is to
    load the model. `remote`: its name does not show it, but it runs at ollama.com."""

    pool: Pool
    model: str
    patience: float
    num_ctx: int = 0                        # tokens; 0 leaves it to Ollama and the client
    keep_alive: str | int | float = ""      # as Ollama takes it; "" leaves it to Ollama and the client
    remote: bool = False
    guards: Guards = Guards()

    @property
    def cloud(self) -> bool:
        """Does it run at ollama.com? Then there is nothing to load."""
        return self.remote or bool(self.model) and is_cloud(canonical(self.model))

    def loading(self) -> dict[str, object]:
        """The native request that only loads the model."""
        order: dict[str, object] = {"model": self.model}
        if self.num_ctx:
            order["options"] = {"num_ctx": self.num_ctx}
        if self.keep_alive != "":
            order["keep_alive"] = self.keep_alive
        return order


class Registry:
    """`find` from any thread, without a lock; `apply` and `sweep` from the main thread; `adopt` from any."""

    def __init__(self, config: Config, supervise: Callable[[Pool], None], wake: Callable[[], None]):
        self._supervise = supervise
        self._wake = wake
        self._lock = threading.Lock()
        self._places: dict[str, Place] = {}
        self._refusal: HermesError | None = None
        self._retired: WeakSet[Pool] = WeakSet()        # whoever runs or waits there keeps them; some are wanted again. Only the main thread adds
        self._defaults: DefaultSettings = config.defaults
        self._caps: Caps[Pool] = Caps()
        self.control = self._place("control", "", CONTROL_WORKERS, CONTROL_QUEUE, CONTROL_PATIENCE)
        self.apply(config)

    def find(self, key: str) -> Place | None:
        """`key` is a canonical name."""
        return self._places.get(key)

    @property
    def places(self) -> Collection[Place]:
        """All of them, one that has two names twice; also those that have no model."""
        return self._places.values()

    def apply(self, config: Config) -> None:
        """Make the pools what `config` says. Who runs or waits is not touched; a pool that has gone ends when it is empty."""
        with self._lock:
            old = {place.pool.name: place for place in self._places.values() if place.pool.model}
            places = {key: place for key, place in self._places.items() if not place.pool.model}    # the pulls' own
            self._defaults = config.defaults
            listed = {canonical(name) for model in config.models for name in (model.name, model.model)}
            kept = {model.name: old.pop(model.name) for model in config.models if _fits(old.get(model.name), model)}
            for place in old.values():          # first, so that a model that is listed by another name now finds its pool among them
                if place.pool.on_demand and canonical(place.model) not in listed:
                    places[canonical(place.model)] = self._renew(place, config.defaults)
                else:
                    self._retire(place.pool, place.pool.snapshot().queue_limit)
            for model in config.models:
                place = self._keep(kept.get(model.name), model)
                places[canonical(model.name)] = places[canonical(model.model)] = place
            for place in places.values():
                place.pool.bound_starvation(config.defaults.max_starvation)
            self.embedding_rank = CLASSES.index(config.defaults.embedding_class)
            self._places = places
        for pool in self._caps.apply({client.name: client.max_concurrency for client in config.clients if client.max_concurrency is not None}):
            pool.match()

    def _keep(self, old: Place | None, model: ModelSettings) -> Place:
        if old is None:
            place = self._place(model.name, model.model, model.max_concurrency, model.max_queue, model.queue_timeout)
            return _loaded_as(place, model)
        old.pool.resize(model.max_concurrency, model.max_queue)
        return _loaded_as(Place(old.pool, model.model, model.queue_timeout), model)

    def _retire(self, pool: Pool, limit: int) -> None:
        pool.resize(0, limit)
        self._retired.add(pool)

    def _renew(self, place: Place, defaults: DefaultSettings) -> Place:
        place.pool.resize(defaults.max_concurrency, defaults.max_queue)
        return _loaded_as(replace(place, patience=defaults.queue_timeout), defaults)

    def adopt(self, name: str, remote: bool = False) -> Place:
        """A pool for a model that Ollama has and nobody listed. `remote` as in Place."""
        key = canonical(name)
        with self._lock:
            if key not in self._places:
                defaults = self._defaults
                place = self._place(name, name, defaults.max_concurrency, defaults.max_queue, defaults.queue_timeout)
                place = _loaded_as(replace(place, remote=remote), defaults)
                place.pool.on_demand = True
                self._places = {**self._places, key: place}
            return self._places[key]

    def puller(self) -> Place:
        """The pool for what moves models; made on demand like a model's, under a name that no model can have."""
        with self._lock:
            if "/pull" not in self._places:
                place = self._place("pull", "", PULL_WORKERS, PULL_QUEUE, float("inf"))
                place.pool.on_demand = True
                self._places = {**self._places, "/pull": place}
            return self._places["/pull"]

    def sweep(self, now: float) -> float:
        """Dismiss pools on demand that have been quiet for too long. Returns when to come again (monotonic; inf = never)."""
        soonest = float("inf")
        with self._lock:
            for key, place in list(self._places.items()):
                if place.pool.on_demand:
                    picture = place.pool.snapshot()
                    rests = picture.idle_since is not None and not picture.paused       # a new pool would not know that it is paused
                    due = (picture.idle_since if rests else now) + self._defaults.dismiss_after
                    if due <= now:
                        self._retire(place.pool, picture.queue_limit)       # for whoever has found it already
                        self._places = {k: p for k, p in self._places.items() if k != key}
                    else:
                        soonest = min(soonest, due)
        return soonest

    def refuse(self, error: HermesError) -> None:
        """From now on nobody waits: every pool answers `error`."""
        with self._lock:
            self._refusal = error
            pools = self._working()
        for pool in pools:
            pool.refuse(error)

    def snapshots(self) -> list[PoolSnapshot]:
        """The models' pools; control and pull are not models."""
        return [pool.snapshot() for pool in self._pools() if pool.model]

    def busy(self) -> bool:
        """Is anything running or waiting anywhere?"""
        return any(picture.busy or picture.queued for picture in (pool.snapshot() for pool in self._working()))

    def staffed(self) -> bool:
        """Does a worker of any model stand, or, where there is no model, one of control?"""
        pools = [pool for pool in self._pools() if pool.model] or [self.control.pool]
        return any(pool.snapshot().pids for pool in pools)

    def leased(self) -> list:
        return [child for pool in self._working() for child in pool.leased()]

    def _pools(self) -> list[Pool]:
        return [self.control.pool, *dict.fromkeys(place.pool for place in self._places.values())]

    def _working(self) -> list[Pool]:
        """Those that are being retired as well."""
        return list(dict.fromkeys([*self._pools(), *self._retired]))

    def _place(self, name: str, model: str, size: int, limit: int, patience: float) -> Place:
        """Under the lock. A pool of its own, or the one that the same model is being retired from: who runs there runs beside those who
        come now, and all of them together must not be more than `size`."""
        retired = [pool for pool in self._retired if model and pool.model and same(pool.model, model)]
        pool = next((pool for pool in retired if pool.revive(name, size, limit)), None)
        if pool is None:
            pool = Pool(name, model, size, limit, self._wake, self._caps if model else None)
            if self._refusal:
                pool.refuse(self._refusal)
            self._supervise(pool)
        pool.on_demand = False
        pool.bound_starvation(self._defaults.max_starvation)
        return Place(pool, model, patience)


def _fits(old: Place | None, model: ModelSettings) -> bool:
    """May a listed model go on in the pool that has its name?"""
    return old is not None and not old.pool.on_demand and old.model == model.model


def _loaded_as(place: Place, settings: ModelSettings | DefaultSettings) -> Place:
    """A place with the model's guards, and with the load settings unless there is nothing to load."""
    place = replace(place, guards=Guards(settings.max_output_tokens, settings.max_run_time, settings.max_keep_alive, settings.options))
    return place if place.cloud else replace(place, num_ctx=settings.num_ctx, keep_alive=settings.keep_alive)
