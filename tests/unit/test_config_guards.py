"""The keys that limit what a request may ask of a model."""

import math

import pytest

from hermes.config import Config, ConfigError, loads
from hermes.config.options import NUMBERS, Bound
from hermes.dispatch.registry import Guards, Registry
from hermes.names import canonical


def problem(text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(text, environ=environ)
    [only] = caught.value.problems
    return str(only)


def limits(settings: object) -> tuple:
    return settings.max_output_tokens, settings.max_run_time, settings.max_keep_alive, settings.options


OFF = (0, math.inf, math.inf, ())


def test_off_is_the_default() -> None:
    assert limits(loads("").defaults) == OFF and limits(loads("[models.m]").models[0]) == OFF
    text = 'max_output_tokens = "off"\nmax_run_time = "off"\nmax_keep_alive = "off"\noptions = {}\n'
    assert limits(loads(f"[defaults]\n{text}").defaults) == OFF
    found = loads(f"[defaults]\nmax_output_tokens = 5\nmax_run_time = 6\nmax_keep_alive = 7\n[models.m]\n{text}").models[0]
    assert limits(found) == OFF, "a model may be let off"


def test_values_and_what_a_model_takes_over() -> None:
    found = loads('[defaults]\nmax_output_tokens = 4096\nmax_run_time = "5m"\nmax_keep_alive = "1h"\noptions = { num_ctx = [0, 8192], top_p = [0.1, 1] }\n'
                  '[models.a]\n[models.b]\nmax_output_tokens = 1\nmax_run_time = 1.5\nmax_keep_alive = "1s"\n[models.b.options]\nnum_ctx = [4, inf]\nseed = [-inf, 9]\n')
    first = (4096, 300.0, 3600.0, (Bound("num_ctx", 0, 8192), Bound("top_p", 0.1, 1)))
    assert limits(found.defaults) == limits(found.models[0]) == first
    assert limits(found.models[1]) == (1, 1.5, 1.0, (Bound("num_ctx", 4, math.inf), Bound("seed", -math.inf, 9), Bound("top_p", 0.1, 1)))


def test_variables() -> None:
    found = loads("", environ={"HERMES_DEFAULTS_MAX_OUTPUT_TOKENS": "100", "HERMES_DEFAULTS_MAX_RUN_TIME": "30", "HERMES_DEFAULTS_MAX_KEEP_ALIVE": "10m",
                               "HERMES_DEFAULTS_OPTIONS": " { num_ctx = [0, 4096] }"}).defaults
    assert limits(found) == (100, 30.0, 600.0, (Bound("num_ctx", 0, 4096),))
    assert limits(loads("[defaults]\nmax_output_tokens = 1", environ={"HERMES_DEFAULTS_MAX_OUTPUT_TOKENS": "off"}).defaults)[0] == 0
    assert problem("", HERMES_DEFAULTS_OPTIONS="num_ctx").startswith("environment: HERMES_DEFAULTS_OPTIONS is \"num_ctx\": wanted is a table such as")


@pytest.mark.parametrize("literal", ["0", "-1", "2147483648", "1.5", '"5"', "true", '"of"', "[1]"])
def test_wrong_numbers_of_tokens(literal: str) -> None:
    for section in ("[defaults]", "[models.m]"):
        assert problem(f"{section}\nmax_output_tokens = {literal}").endswith('wanted is a whole number, 1 to 2147483647, or "off"')


@pytest.mark.parametrize(("key", "literal"), [("max_run_time", "0"), ("max_run_time", "-1"), ("max_run_time", '"5"'), ("max_keep_alive", "0"), ("max_keep_alive", '"0.5s"'), ("max_keep_alive", "-1")])
def test_wrong_times(key: str, literal: str) -> None:
    assert f"hermes.toml:2: '{key}' in [models.m] is " in problem(f"[models.m]\n{key} = {literal}")


@pytest.mark.parametrize(("literal", "words"), [
    ("[0, 1]", "wanted is a table such as"), ('"x"', "wanted is a table such as"), ("{ num_ctx = 8192 }", "num_ctx in it: wanted is [LEAST, GREATEST]"),
    ("{ num_ctx = [1] }", "wanted is [LEAST"), ("{ num_ctx = [1, 2, 3] }", "wanted is [LEAST"), ("{ num_ctx = [2, 1] }", "wanted is [LEAST"),
    ("{ num_ctx = [nan, 1] }", "wanted is [LEAST"), ("{ num_ctx = [true, 2] }", "wanted is [LEAST"), ('{ num_ctx = ["0", "1"] }', "wanted is [LEAST"),
    ("{ num_predict = [0, 1] }", "max_output_tokens"), ("{ temprature = [0, 1] }", "(did you mean temperature?)"), ("{ stop = [0, 1] }", "none of Ollama's options with a number"),
    ("{ NUM_CTX = [0, 1] }", "did you mean num_ctx"), ("{ n_discard = [0, 1] }", "none of Ollama's options")])
def test_wrong_bounds(literal: str, words: str) -> None:
    for section in ("[defaults]", "[models.m]"):
        message = problem(f"{section}\noptions = {literal}")
        assert message.startswith(f"hermes.toml:2: 'options' in {section} is ") and words in message


def test_every_number_may_be_bounded() -> None:
    table = ", ".join(f"{name} = [0, 1.5]" for name in NUMBERS if name != "num_predict")
    assert [bound.name for bound in loads(f"[defaults]\noptions = {{ {table} }}").defaults.options] == [name for name in NUMBERS if name != "num_predict"]


# -- the places ----------------------------------------------------------------------------------------------------

def registry(settings: Config) -> Registry:
    return Registry(settings, lambda pool: None, lambda: None)


def test_a_place_has_the_guards_of_its_model() -> None:
    text = '[defaults]\nmax_output_tokens = 10\nmax_run_time = 20\nmax_keep_alive = 30\noptions = { seed = [1, 2] }\n[models.m]\nmax_output_tokens = 5\n[models."x:cloud"]\n'
    found, expected = registry(loads(text)), Guards(10, 20.0, 30.0, (Bound("seed", 1, 2),))
    assert found.find(canonical("m")).guards == expected._replace(max_output_tokens=5)
    assert found.find(canonical("x:cloud")).guards == found.adopt("other").guards == found.adopt("far", remote=True).guards == expected
    assert found.control.guards == found.puller().guards == Guards(), "what is no model's has none"


def test_a_reload_changes_them() -> None:
    found = registry(loads("[models.m]"))
    found.adopt("other")
    found.apply(loads("[defaults]\nmax_run_time = 3\n[models.m]\n"))
    assert found.find(canonical("m")).guards == found.find(canonical("other")).guards == Guards(max_run_time=3.0)
