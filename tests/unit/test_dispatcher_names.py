"""What a name leads to: a pool, a model at Ollama, a refusal. Ollama's answers are written down; no process runs."""

import json

import pytest

from hermes import config
from hermes.dispatch.derivatives import derived_name
from hermes.dispatch.dispatcher import Dispatcher, Upstream
from hermes.dispatch.registry import Registry
from hermes.errors import BadRequest, CloudRefused, ModelNotFound, UpstreamError
from hermes.names import canonical
from hermes.workers.messages import Timeouts

CONFIG = """
[defaults]
num_ctx = 4096
keep_alive = "10m"
[models.gemma]
model = "gemma3:270m"
[models.big]
num_ctx = 32768
keep_alive = -1
[models.free]
num_ctx = "ollama"
keep_alive = "ollama"
[models.far]
model = "gpt-oss:20b-cloud"
"""


class Told(Dispatcher):
    """`shown` is what Ollama says of every model: status, answer."""

    def __init__(self, allow_cloud: bool = False):
        super().__init__(Registry(config.loads(CONFIG), lambda pool: None, lambda: None), Upstream("http://x", Timeouts(), allow_cloud))
        self.shown: tuple[int, object] = (200, {"details": {}})
        self.asked: list[str] = []

    def ask(self, method, path, client, body=b"", place=None):
        assert (method, path) == ("POST", "/api/show")
        self.asked.append(json.loads(body)["model"])
        return self.shown[0], json.dumps(self.shown[1]).encode()


CLOUDY = ["gpt-oss:cloud", "GPT-OSS:120b-Cloud", "gpt-oss:20b:cloud", "hf.co/u/x:cloud", "far", "FAR:latest", "gpt-oss:20b-cloud"]


@pytest.mark.parametrize("name", CLOUDY)
def test_cloud_models_are_refused_unasked(name: str) -> None:
    dispatcher = Told()
    for find in (dispatcher.known, lambda name: dispatcher.place(name, None)):
        with pytest.raises(CloudRefused) as caught:
            find(name)
        assert caught.value.status == 403 and "allow_cloud" in caught.value.text and f"'{name}'" in caught.value.text
    assert not dispatcher.asked


@pytest.mark.parametrize("name", CLOUDY)
def test_cloud_models_where_they_are_allowed(name: str) -> None:
    place = Told(allow_cloud=True).place(name, None)
    assert place.cloud and (place.num_ctx, place.keep_alive) == (0, ""), "there is nothing to load"


@pytest.mark.parametrize("stub", [{"remote_host": "https://ollama.com:443"}, {"remote_model": "gpt-oss:120b"}])
def test_a_stub_under_another_name(stub: dict) -> None:
    dispatcher = Told()
    dispatcher.shown = (200, stub)
    with pytest.raises(CloudRefused):
        dispatcher.place("innocent", None)
    assert dispatcher.registry.find(canonical("innocent")) is None, "no pool was made"
    dispatcher.upstream = dispatcher.upstream._replace(allow_cloud=True)
    assert dispatcher.place("innocent", None).cloud
    dispatcher.upstream = dispatcher.upstream._replace(allow_cloud=False)
    with pytest.raises(CloudRefused):
        dispatcher.place("innocent", None)
    assert dispatcher.asked == ["innocent"] * 2


def test_local_models_pass() -> None:
    dispatcher = Told()
    dispatcher.shown = (200, {"remote_host": "", "remote_model": None})
    place = dispatcher.place("gpt-oss:local", None)
    assert not place.cloud and (place.num_ctx, place.keep_alive) == (4096, "10m")


@pytest.mark.parametrize(("shown", "error"), [((404, {}), ModelNotFound), ((400, {}), BadRequest), ((500, {}), UpstreamError)])
def test_what_ollama_does_not_have(shown: tuple[int, object], error: type) -> None:
    dispatcher = Told()
    dispatcher.shown = shown
    with pytest.raises(error):
        dispatcher.place("other", None)


@pytest.mark.parametrize(("name", "text"), [("x:local:cloud", 'use either :local or :cloud, not both: "x:local:cloud"'), ("a/b/c/d", "invalid model name"),
                                            ("", "invalid model name")])
def test_malformed_names(name: str, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Told().place(name, None)
    assert caught.value.text == text
    assert Told().alias_of(name) is None


@pytest.mark.parametrize(("name", "num_ctx", "keep_alive"), [("gemma", 4096, "10m"), ("gemma3:270m", 4096, "10m"), ("big", 32768, -1), ("free", 0, ""),
                                                             ("unlisted", 4096, "10m")])
def test_how_models_are_loaded(name: str, num_ctx: int, keep_alive: object) -> None:
    place = Told().place(name, None)
    assert (place.num_ctx, place.keep_alive) == (num_ctx, keep_alive)


def test_a_reload_changes_how_models_are_loaded() -> None:
    dispatcher = Told()
    before = {name: dispatcher.place(name, None).pool for name in ("gemma", "unlisted")}
    dispatcher.registry.apply(config.loads('[defaults]\nnum_ctx = 2048\n[models.gemma]\nmodel = "gemma3:270m"\nkeep_alive = "1h"\n'))
    gemma, unlisted = (dispatcher.place(name, None) for name in ("gemma", "unlisted"))
    assert (gemma.num_ctx, gemma.keep_alive, unlisted.num_ctx, unlisted.keep_alive) == (2048, "1h", 2048, "")
    assert {"gemma": gemma.pool, "unlisted": unlisted.pool} == before


@pytest.mark.parametrize(("name", "ollamas"), [("gemma", "gemma3:270m"), ("GEMMA:latest", "gemma3:270m"), ("gemma3:270m", None), ("Gemma3:270M", None),
                                               ("library/gemma3:270m", None), ("big", None), ("Big:latest", None), ("unknown", None)])
def test_aliases_and_spellings(name: str, ollamas: str | None) -> None:
    """Only the configuration's own names are unknown to Ollama; what it reads as its own stays as the client wrote it."""
    dispatcher = Told()
    assert dispatcher.alias_of(name) == ollamas
    if name != "unknown":
        assert dispatcher.name_of(dispatcher.place(name, None), name) == (ollamas or name)


@pytest.mark.parametrize("model", ["gemma3:270m", "big", "free", "me/unlisted:1b"])
@pytest.mark.parametrize("num_ctx", [4096, 8])
def test_the_second_name_of_a_model_is_no_way_round_its_limits(model: str, num_ctx: int) -> None:
    """It is in Ollama's lists. 8: one that an older configuration has left behind."""
    dispatcher = Told()
    dispatcher.place("me/unlisted:1b", None)
    place, second = dispatcher.place(model, None), derived_name(model, num_ctx)
    assert dispatcher.place(second, None) is place and dispatcher.place(second.upper(), None) is place
    assert dispatcher.name_of(place, second) == place.model, "Ollama is asked for the model itself, at the size that is configured"
    assert dispatcher.asked == ["me/unlisted:1b"]


def test_a_second_name_that_had_a_pool_before_its_model_was_listed() -> None:
    dispatcher = Told()
    before = dispatcher.place(derived_name("late", 8192), None)
    assert before.pool.on_demand
    dispatcher.registry.apply(config.loads(CONFIG + "[models.late]\n"))
    assert dispatcher.place(derived_name("late", 8192), None) is dispatcher.registry.find(canonical("late"))


@pytest.mark.parametrize("name", ["hermes/gemma3:270m", "hermes/gemma3:270m-ctx", "hermes/gemma3:1b-ctx8192", "hermes/gemma3:270m-ctx08192", "you/gemma3:270m-ctx8192",
                                  "hermes/gemma3:270m-ctx8192-0123456789ab"])
def test_what_only_looks_like_a_second_name(name: str) -> None:
    dispatcher = Told()
    assert dispatcher.place(name, None).model == name and dispatcher.asked == [name]
