"""[clients.NAME] in hermes.toml and beside it: what it may say, what becomes of it, and who may listen to the network without."""

from hashlib import sha256
from pathlib import Path

import pytest

from hermes.config import ClientSettings, Config, ConfigError, load, loads

ONE, TWO = "ab" * 32, "cd" * 32
KEY = f'key_sha256 = "{ONE}"\n'


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, environ=environ)
    return [str(problem) for problem in caught.value.problems]


def problem(text: str, **environ: str) -> str:
    [only] = problems(text, **environ)
    return only


def client(lines: str) -> ClientSettings:
    return loads(f"[clients.a]\n{KEY}{lines}").clients[0]


def test_what_is_left_out_limits_nothing() -> None:
    assert client("") == ClientSettings("a", ONE, 1.0, "interactive", "normal", None, None, None, ("*",), False)


def test_everything_said() -> None:
    text = """\
weight = 2
max_class = "normal"
default_class = "background"
max_concurrency = 3
requests_per_minute = 60
tokens_per_day = 1000000
models = ["Gemma3*", "m", "hf.co/*", "me/m:1b"]
manage = true
"""
    patterns = ("registry.ollama.ai/library/gemma3*", "registry.ollama.ai/library/m:latest", "hf.co/*/*", "registry.ollama.ai/me/m:1b")
    assert client(text) == ClientSettings("a", ONE, 2.0, "normal", "background", 3, 60, 1000000, patterns, True)


@pytest.mark.parametrize(("best", "usual"), [("interactive", "normal"), ("normal", "normal"), ("background", "background")])
def test_the_usual_class_is_normal_under_its_cap(best: str, usual: str) -> None:
    assert client(f'max_class = "{best}"').default_class == usual


def test_order_and_case() -> None:
    text = f'[clients.b]\nkey_sha256 = "{ONE.upper()}"\n[clients.a]\nkey_sha256 = "{TWO}"'
    assert [(one.name, one.key_sha256) for one in loads(text).clients] == [("b", ONE), ("a", TWO)]
    assert loads(f'clients.a = {{ key_sha256 = "{ONE}" }}').clients[0].name == "a", "an inline table"


@pytest.mark.parametrize(("line", "wanted"), [
    ("weight = 0", "is 0: wanted is a number, 0.001 to 1000"),
    ("weight = -1", "is -1: wanted is a number"),
    ("weight = nan", "is nan: wanted is a number"),
    ("weight = inf", "is inf: wanted is a number"),
    ("weight = true", "is true: wanted is a number"),
    ('weight = "1"', 'is "1": wanted is a number'),
    ("manage = 1", "is 1: wanted is true or false"),
    ('manage = "true"', 'is "true": wanted is true or false'),
    ('max_class = "interactve"', 'wanted is one of interactive, normal, background (did you mean "interactive"?)'),
    ("max_class = 1", "is 1: wanted is text in quotes"),
    ('default_class = "Normal"', 'wanted is one of interactive, normal, background'),
    ("max_concurrency = 0", "is 0: wanted is a whole number, 1 to 100000"),
    ("requests_per_minute = 1.5", "is 1.5: wanted is a whole number"),
    ("tokens_per_day = -5", "is -5: wanted is a whole number"),
    ("models = []", "is an array: wanted is a list of model names"),
    ('models = "m"', 'is "m": wanted is a list of model names'),
    ('models = ["m", "a b"]', 'and "a b" cannot be one'),
    ('models = ["m", 3]', "and 3 cannot be one"),
    ('models = ["m", 2024-01-01]', "cannot be one"),
    ('models = ["hf.co/m*"]', 'and "hf.co/m*" cannot be one'),
    ('wieght = 1', "unknown key 'wieght' in [clients.a] (did you mean 'weight'?)"),
    ('key = "x"', "unknown key 'key' in [clients.a] (did you mean 'key_sha256'?)"),
    ('model = "x"', "unknown key 'model' in [clients.a] (did you mean 'models'?)"),
    ("listen = 1", "unknown key 'listen' in [clients.a] (it belongs in [server])"),
    ("class = 1", "unknown key 'class' in [clients.a]"),
])
def test_wrong_values(line: str, wanted: str) -> None:
    message = problem(f"[clients.a]\n{KEY}{line}")
    assert message.startswith("hermes.toml:3: ") and wanted in message


@pytest.mark.parametrize("best", ["normal", "background"])
def test_a_usual_class_above_the_best(best: str) -> None:
    message = problem(f'[clients.a]\n{KEY}max_class = "{best}"\ndefault_class = "interactive"')
    assert message.startswith("hermes.toml:4: 'default_class' in [clients.a] is \"interactive\", which is better than its max_class")


@pytest.mark.parametrize("value", ["", "ab", "g" * 64, "ab" * 32 + "a", " " + "ab" * 32, "ab" * 31 + "a\\n", "٣" * 64, "hk-a-real-key", sha256().hexdigest()])
def test_wrong_keys_are_not_shown(value: str) -> None:
    message = problem(f'[clients.a]\nkey_sha256 = "{value}"')
    assert message.startswith("hermes.toml:2: 'key_sha256' in [clients.a] is ***: ")
    assert not value or value not in message
    assert ("the key itself" in message) == value.startswith("hk-") and "SHA-256" in message


@pytest.mark.parametrize("name", ["", "a b", "ä", "-a", "a/b", "a=b", "x" * 65, "a\\n"])
def test_wrong_names(name: str) -> None:
    assert "wanted is a name of letters" in problem(f'[clients."{name}"]\n{KEY}')


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "me@home.example", "x" * 64, "10.0.0.1"])
def test_names(name: str) -> None:
    assert loads(f'[clients."{name}"]\n{KEY}').clients[0].name == name


@pytest.mark.parametrize(("text", "expected"), [
    ("[clients.a]", "hermes.toml:1: [clients.a] has no key_sha256; `python -m hermes key a` makes a key and says what to write"),
    (f"[clients.a]\n{KEY}[clients.b]\n{KEY}", "hermes.toml:4: [clients.b] has the key of [clients.a] (hermes.toml:2): make another with `python -m hermes key b`"),
    (f"[clients.a]\n{KEY}b.c = 1", "hermes.toml:3: unknown key 'b' in [clients.a] (a name with a dot needs quotes: [clients.\"a.b\"])"),
    ("[client.a]", "hermes.toml:1: unknown section [client] (did you mean [clients]?)"),
    ("clients = 1", "hermes.toml:1: 'clients' is 1: wanted is a table, [clients]"),
])
def test_structure(text: str, expected: str) -> None:
    assert problem(text) == expected


# -- the other file


@pytest.fixture
def two(tmp_path: Path):
    """`load` of two files, as paths relative to one another."""
    def read(main: str, more: str | None, name: str = "keys/clients.toml") -> Config:
        (tmp_path / "keys").mkdir(exist_ok=True)
        (tmp_path / "hermes.toml").write_text(f'[server]\nclients_file = "{name}"\n{main}', encoding="utf-8")
        if more is not None:
            (tmp_path / name).write_text(more, encoding="utf-8")
        return load(str(tmp_path / "hermes.toml"))
    read.folder = tmp_path
    return read


def said(two, main: str, more: str | None, **options: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        two(main, more, **options)
    return [str(problem).replace(f"{two.folder}/", "") for problem in caught.value.problems]


def test_a_file_beside_the_other(two) -> None:
    got = two(f"[clients.a]\n{KEY}", f'[clients.b]\nkey_sha256 = "{TWO}"\nweight = 2')
    assert [(one.name, one.weight) for one in got.clients] == [("a", 1.0), ("b", 2.0)]
    assert two("", f"[clients.b]\n{KEY}", name=f"{two.folder}/other.toml").clients[0].name == "b", "an absolute path"


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "clients.toml"
    path.write_text(f"[clients.a]\n{KEY}", encoding="utf-8")
    assert load(None, {"HERMES_SERVER_CLIENTS_FILE": str(path), "HERMES_SERVER_LISTEN": ":1"}).clients[0].name == "a"


def test_problems_of_the_other_file_name_it(two) -> None:
    more = f"[clients.b]\n{KEY}weight = -1\n[server]\nopen = true\n[clients.c]\n{KEY}[clients.a]\n"
    assert [line.partition(": ")[0] for line in said(two, f'[clients.a]\nkey_sha256 = "{TWO}"\nmange = true', more)] == [
        "hermes.toml:5", "keys/clients.toml:3", "keys/clients.toml:4", "keys/clients.toml:7", "keys/clients.toml:8"]


def test_a_client_in_both(two) -> None:
    [only] = said(two, f"[clients.a]\n{KEY}", f'\n[clients.a]\nkey_sha256 = "{TWO}"')
    assert only == "keys/clients.toml:2: [clients.a] is in hermes.toml:3 as well: keep one of the tables"


def test_a_key_in_both(two) -> None:
    [only] = said(two, f"[clients.a]\n{KEY}", f"[clients.b]\n{KEY}")
    assert only.startswith("keys/clients.toml:2: [clients.b] has the key of [clients.a] (hermes.toml:4): ")


@pytest.mark.parametrize("main", ["", 'listen = ":1"\n'])
def test_a_file_that_cannot_be_read_is_one_problem(two, main: str) -> None:
    assert said(two, main, None) == ["keys/clients.toml: cannot read the file: No such file or directory"]
    assert said(two, main, "[clients.a")[0].startswith("keys/clients.toml:1: not valid TOML")


# -- who may listen to the network


@pytest.mark.parametrize("listen", [":1", "0.0.0.0:1", "[::]:1", "192.168.1.2:1", "box.lan:1"])
def test_an_open_door_is_refused(listen: str) -> None:
    message = problem(f'[server]\nlisten = "{listen}"')
    assert message.startswith(f"hermes.toml:2: 'listen' in [server] is \"{listen}\": whoever reaches this address could use Ollama")
    assert all(way in message for way in ("[clients.NAME]", "python -m hermes key NAME", "[server] open = true", "HERMES_SERVER_OPEN=true", "127.0.0.1"))
    assert problem("", HERMES_SERVER_LISTEN=listen).startswith("environment: HERMES_SERVER_LISTEN is ")
    assert "whoever reaches" in problem(f'[server]\nlisten = "{listen}"\n[clients]'), "a table without a client is no client"


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "[::ffff:127.0.0.1]:1"])
def test_this_machine_is_no_open_door(listen: str) -> None:
    assert loads(f'[server]\nlisten = "{listen}"').clients == ()


def test_the_ways_to_open_it() -> None:
    listen = '[server]\nlisten = ":1"\n'
    assert loads(listen + "open = true").server.open
    assert loads(listen, environ={"HERMES_SERVER_OPEN": "true"}).server.open
    assert loads(f"{listen}[clients.a]\n{KEY}").clients
    assert "whoever" in problem(listen + "open = true", HERMES_SERVER_OPEN="false"), "the environment comes first"


def test_wrong_clients_are_said_and_not_the_open_door() -> None:
    assert [line.partition(" ")[0] for line in problems('[server]\nlisten = ":1"\n[clients.a]\nkey_sha256 = "x"')] == ["hermes.toml:4:"]
