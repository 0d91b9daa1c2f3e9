"""What Ollama is seen to be, and the page that shows it."""

import json
import time

import pytest

from hermes.dispatch.pool import Pool
from hermes.errors import ClientGone, UpstreamUnreachable
from hermes.observe.status import Counters, Facts, picture, see_ollama


def see(version: object, ps: object):
    return see_ollama(lambda path: (200, json.dumps({"/api/version": version, "/api/ps": ps}[path]).encode()))


def test_seen() -> None:
    seen = see({"version": "0.33"}, {"models": [{"model": "M:latest", "size": 5}]})
    assert (seen.up, seen.version, seen.error) == (True, "0.33", None)
    assert seen.loaded["registry.ollama.ai/library/m:latest"]["size"] == 5
    assert see({"version": "0.33"}, {"models": None}).loaded == {}


@pytest.mark.parametrize(("version", "ps"), [([], {}), ({}, []), ({}, {"models": 7}), ({}, {"models": [1]}), ({}, {"models": [{"model": 1}]})])
def test_nonsense_from_ollama_is_ollamas_fault(version: object, ps: object) -> None:
    assert not see(version, ps).up


def test_unreachable() -> None:
    def ask(path: str):
        raise UpstreamUnreachable("cannot connect")
    assert (see_ollama(ask).up, see_ollama(ask).error) == (False, "cannot connect")


def test_a_client_that_leaves_says_nothing_about_ollama() -> None:
    """The answer is kept for a second and shown to others: /readyz would fail for all of them."""
    def ask(path: str):
        raise ClientGone
    with pytest.raises(ClientGone):
        see_ollama(ask)


def test_picture_is_json_and_adds_up() -> None:
    pools = [Pool("a", "a", 2, 4), Pool("b", "b", 1, 4)]
    counters = Counters()
    for outcome in ("ok", "ok", "refused", "queue_full", "cancelled", "upstream_broken"):
        counters.note(outcome)
    seen = see({"version": "1"}, {"models": [{"model": "a", "size": 7, "size_vram": 3, "expires_at": "t"}]})
    page = json.loads(json.dumps(picture(Facts("serving", time.monotonic(), "http://u", counters.snapshot(), {"a": 1}, log_dropped=4), [pool.snapshot() for pool in pools], seen), allow_nan=False))
    totals = page["totals"]
    assert (totals["requests"], totals["ok"], totals["rejected"], totals["cancelled"], totals["errors"], totals["capacity"]) == (6, 2, 1, 1, 1, 3)
    assert page["models"][0]["workers"].items() >= {"max": 2, "idle": 0, "busy": 0, "starting": 1, "down": 1}.items()
    assert (page["status"], page["models"][0]["loaded"], page["models"][0]["memory"], page["models"][1]["loaded"]) == ("ok", True, 7, False)
    assert page["log"] == {"dropped": 4}
