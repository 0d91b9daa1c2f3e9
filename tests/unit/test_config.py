"""hermes.toml: what it may say, what becomes of it, and the message for everything else."""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest

from hermes import config
from hermes.config.addresses import base_url, is_own
from hermes.config import SETTINGS, ClientSettings, ConfigError, ModelSettings, Problem, find, load, loads
from hermes.config.settings import NAMED, SECTIONS
from hermes.config.tomllines import line_of, scan

SHIPPED = Path(__file__).parents[2] / "hermes.toml"
OPEN = {"HERMES_SERVER_OPEN": "true"}


def problems(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, environ=environ or {})
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


def problem(text: str, environ: Mapping[str, str] | None = None) -> str:
    [only] = problems(text, environ)
    return only


def value(section: str, key: str, literal: str) -> Any:
    return getattr(getattr(loads(f"[{section}]\n{key} = {literal}"), section), key)


# --- the table, the defaults and the shipped file


def test_built_in_settings() -> None:
    built_in = load()
    server, ollama, defaults = built_in.server, built_in.ollama, built_in.defaults
    assert (server.host, server.port, server.listen) == ("127.0.0.1", 11435, "127.0.0.1:11435")
    assert (server.drain_timeout, server.max_body, server.max_connections) == (8.0, 64 * 1024 * 1024, 2048)
    assert (server.head_timeout, server.body_timeout, server.max_parked) == (5.0, 60.0, 256 * 1024 * 1024)
    assert (server.hosts, server.origins) == ((), ())
    assert (server.keepalive_timeout, server.send_timeout, server.state_dir) == (75.0, 30.0, "")
    assert (ollama.url, ollama.connect_timeout) == ("http://127.0.0.1:11434", 2.0)
    assert (ollama.first_byte_timeout, ollama.idle_timeout, ollama.total_timeout) == (600.0, 120.0, 3600.0)
    assert (defaults.max_concurrency, defaults.max_queue) == (1, 64)
    assert (defaults.queue_timeout, defaults.dismiss_after) == (60.0, 300.0)
    assert (ollama.allow_cloud, defaults.num_ctx, defaults.keep_alive) == (False, 0, "")
    assert (built_in.log.level, built_in.log.format) == ("info", "logfmt")
    assert (built_in.log.level, built_in.models, built_in.clients, built_in.path) == ("info", (), (), None)
    assert (server.open, server.manage, server.clients_file) == (False, False, "")


def test_folder(tmp_path: Path, monkeypatch) -> None:
    assert loads("").server.state_dir == loads('[server]\nstate_dir = ""').server.state_dir == ""
    assert loads(f'[server]\nstate_dir = "{tmp_path}"').server.state_dir == str(tmp_path)
    assert load(None, {"HERMES_SERVER_STATE_DIR": str(tmp_path)}).server.state_dir == str(tmp_path)
    missing, file = tmp_path / "missing", tmp_path / "file"
    file.touch()
    for path in (missing, file):
        assert problem(f'[server]\nstate_dir = "{path}"').startswith(f"hermes.toml:2: 'state_dir' in [server] is \"{path}\": there is no such folder")
    assert "wanted is the path of a folder" in problem('[server]\nstate_dir = "a\\u0000"')
    assert "wanted is text" in problem("[server]\nstate_dir = 1")
    monkeypatch.setattr(config.os, "access", lambda path, mode: not (path == str(tmp_path) and mode == config.os.W_OK | config.os.X_OK))
    assert "may not write" in problem(f'[server]\nstate_dir = "{tmp_path}"')


@pytest.mark.parametrize(
    ("literal", "hosts"),
    [
        ("[]", ()),
        ('["hermes.example.com", "Box", "192.0.2.7"]', ("hermes.example.com", "box", "192.0.2.7")),
        ('["[2001:DB8::1]", "2001:db8:0::2", "_a.b-c"]', ("2001:db8::1", "2001:db8::2", "_a.b-c")),
    ],
)
def test_hosts(literal: str, hosts: tuple[str, ...]) -> None:
    assert value("server", "hosts", literal) == hosts


@pytest.mark.parametrize("literal", ['"a"', "1", "[1]", "{a = 1}", '[["a"]]', "true"])
def test_lists_that_are_none(literal: str) -> None:
    assert "wanted is a list of names or addresses" in problem(f"[server]\nhosts = {literal}")
    assert "wanted is a list of origins" in problem(f"[server]\norigins = {literal}")


@pytest.mark.parametrize("host", ["", " ", "a b", "a:80", "[::1]:80", "*.example.com", "http://a", "a/b", "é", "127.0.0.256", "[a]", "a@b", "-a", "a\\u0000"])
def test_wrong_hosts(host: str) -> None:
    said = problem(f'[server]\nhosts = ["good.example", "{host}"]')
    assert said.startswith("hermes.toml:2: 'hosts' in [server] is an array: \"") and "\" in it: wanted is " in said


@pytest.mark.parametrize(
    "origin",
    ["*", "https://app.example.com", "http://10.0.0.5:8080", "http://[::1]:1", "https://*.example.org", "http://10.0.0.5:*", "*.example.net", "*://a.example"]
    + ["http*://a", "chrome-extension://*", "moz-extension://abc", "file://", "app://x", "HTTPS://App.Example.com"],
)
def test_origins(origin: str) -> None:
    assert value("server", "origins", f'["{origin}"]') == (origin.lower(),)
    assert load(None, {"HERMES_SERVER_ORIGINS": f"https://first.example, {origin} ,"}).server.origins == ("https://first.example", origin.lower())


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        ("https://*.*.example", "only one \\*"), ("**", "only one"), ("https://a.example/", "leave out the /"), ("https://a.example/x", "scheme://"),
        ("a.example", "scheme://"), ("null", "scheme://"), ("", "scheme://"), ("https://", "scheme://"), ("https://a b", "scheme://"), ("//a", "scheme://"),
        ("https://a,https://b", "scheme://"), ("https://u@a", "scheme://"), ("https://a?x", "scheme://"), ("chrome-extension:*", "scheme://"), ("/", "scheme://"),
    ],
)
def test_wrong_origins(origin: str, wanted: str) -> None:
    said = problem(f'[server]\norigins = ["https://good.example", "{origin}"]')
    assert re.search(rf"^hermes\.toml:2: 'origins' in \[server\] is an array: \"{re.escape(origin)}\" in it: .*{wanted}", said)


def test_lists_from_the_environment() -> None:
    ollamas, ours = {"OLLAMA_ORIGINS": "https://a.example,app://*"}, {"HERMES_SERVER_ORIGINS": "https://b.example"}
    assert load(None, ollamas).server.origins == ("https://a.example", "app://*")
    assert load(None, ollamas | ours).server.origins == ("https://b.example",)
    assert loads("[server]\norigins = []", environ=ollamas).server.origins == (), "the file has said something"
    assert loads('[server]\norigins = ["*"]', environ=ours).server.origins == ("https://b.example",)
    assert load(None, {"OLLAMA_ORIGINS": '"*"'}).server.origins == ("*",) and load(None, {"OLLAMA_ORIGINS": " "}).server.origins == ()
    assert load(None, {"HERMES_SERVER_HOSTS": " a.example, [::1],"}).server.hosts == ("a.example", "::1")
    assert problem("", {"OLLAMA_ORIGINS": "a.example"}).startswith('environment: OLLAMA_ORIGINS is an array: "a.example" in it: ')


def test_settings_are_frozen() -> None:
    settings = load()
    model = loads("[models.m]").models[0]
    client = loads(f'[clients.c]\nkey_sha256 = "{"ab" * 32}"').clients[0]
    for part in (settings, settings.server, settings.admin, settings.ollama, settings.defaults, settings.log, model, client):
        with pytest.raises(FrozenInstanceError):
            setattr(part, fields(part)[0].name, None)


def test_table_and_dataclasses_agree() -> None:
    built_in = load()
    for section in ("server", "admin", "ollama", "defaults", "log"):
        keys = [setting.key for setting in SETTINGS if setting.section == section]
        names = [field.name for field in fields(getattr(built_in, section))]
        assert [name for name in names if name not in ("host", "port", "listen")] == [key for key in keys if key != "listen"]
    keys = [setting.key for setting in SETTINGS if setting.section == "models"]
    assert ["name", *keys] == [field.name for field in fields(ModelSettings)]
    keys = [setting.key for setting in SETTINGS if setting.section == "clients"]
    assert ["name", *keys] == [field.name for field in fields(ClientSettings)]
    assert {setting.section for setting in SETTINGS} == set(SECTIONS)
    assert all(setting.doc.endswith(".") and "\n" not in setting.doc for setting in SETTINGS)


@pytest.mark.parametrize("environ", [{}, {"OLLAMA_HOST": "gpu-box"}, {"OLLAMA_ORIGINS": "https://a.example"}, {"HERMES_DEFAULTS_MAX_QUEUE": "7"}])
def test_shipped_file_equals_the_defaults(environ: dict[str, str]) -> None:
    assert replace(loads(SHIPPED.read_text(encoding="utf-8"), environ=environ), path=None) == load(None, environ)


def test_shipped_file_has_every_key_once_with_its_comment() -> None:
    section, found = "", {}
    comment: list[str] = []
    text = SHIPPED.read_text(encoding="utf-8")
    for line in text[: text.index("# [models.gemma]")].splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
        elif key := re.fullmatch(r"(?:# )?(\w+) = (.+)", line):
            assert (section, key[1]) not in found, f"{key[1]} is there twice"
            found[section, key[1]] = (key[2], comment[0] if comment else None)
        comment = [*comment, line] if line.startswith("# ") else []
    fixed = [setting for setting in SETTINGS if setting.section not in NAMED]
    assert found == {(s.section, s.key): (s.default, f"# {s.doc}") for s in fixed}


def test_shipped_file_only_leaves_out_what_has_a_fallback() -> None:
    data = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    given = {(section, key) for section, table in data.items() for key in table}
    fixed = {(s.section, s.key) for s in SETTINGS if s.section not in NAMED}
    assert fixed - given == {(s.section, s.key) for s in SETTINGS if s.fallback}, "a url in the shipped file would hide OLLAMA_HOST"
    assert fixed - given == {("ollama", "url"), ("server", "origins")}


def test_shipped_examples_of_models_work() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    examples = text[text.index("# [models.gemma]") : text.index("# One table for each client")].replace("# ", "").replace("#", "")
    assert loads(examples).models == (
        ModelSettings("gemma", "gemma3:270m", 2, 64, 60.0, "medium"),
        ModelSettings("mistral", "mistral", 1, 64, 60.0, "high"),
    )
    for setting in SETTINGS:
        if setting.section in NAMED:
            assert re.search(rf"^# {setting.key} +{re.escape(setting.doc)}$", text, re.MULTILINE)


def test_shipped_examples_of_clients_work() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    examples = text[text.index("# [clients.alice]") :].replace("# ", "").replace("#", "")
    alice, batch = loads(examples).clients
    assert (alice.name, alice.models, alice.manage, alice.default_class) == ("alice", ("*",), True, "normal")
    assert (batch.name, batch.weight, batch.max_class, batch.default_class) == ("batch", 0.5, "background", "background")
    assert batch.models == ("registry.ollama.ai/library/gemma3*", "registry.ollama.ai/library/llama3.2:1b")


# --- values


@pytest.mark.parametrize(
    ("literal", "seconds"),
    [
        ('"250ms"', 0.25),
        ('"30s"', 30.0),
        ('"1m30s"', 90.0),
        ('"2h"', 7200.0),
        ('"1.5s"', 1.5),
        ('"1h1m1s1ms"', 3661.001),
        ("30", 30.0),
        ("0.5", 0.5),
        ('"1ms"', 0.001),
        ('"168h"', 604800.0),
    ],
)
def test_durations(literal: str, seconds: float) -> None:
    got = value("server", "head_timeout", literal)
    assert got == pytest.approx(seconds) and isinstance(got, float)


@pytest.mark.parametrize(
    "literal",
    ['""', '"s"', '"30 s"', '"30S"', '"30x"', '"-30s"', '"1e3s"', '"1m30"', '"٣s"', '"30s\\n"']
    + ['"0s"', '"169h"', '"off"', "0", "-1", "1e9", "nan", "inf", "-inf", "true", "[]", "{}", "2024-01-01", "1e-9"],
)
def test_wrong_durations(literal: str) -> None:
    message = problem(f"[server]\nhead_timeout = {literal}")
    assert message.startswith("hermes.toml:2: 'head_timeout' in [server] is ")
    assert message.endswith('wanted is a time such as "250ms", "30s" or "1m30s", 1ms to 168h')


def test_duration_without_unit() -> None:
    assert problem('[server]\nhead_timeout = "30"') == (
        "hermes.toml:2: 'head_timeout' in [server] is \"30\": "
        'it has no unit; wanted is "30s", "30ms" or a number without quotes (seconds)'
    )


def test_drain_may_be_zero() -> None:
    assert value("server", "drain_timeout", '"0s"') == 0.0
    assert value("server", "drain_timeout", "0") == 0.0
    assert "0ms to 168h" in problem("[server]\ndrain_timeout = -1")


def test_off_where_it_makes_sense() -> None:
    can_be_off = set()
    for setting in SETTINGS:
        if setting.kind.startswith("duration") and setting.section != "models":
            try:
                assert value(setting.section, setting.key, '"off"') == math.inf
            except ConfigError:
                continue
            can_be_off.add(setting.key)
    assert can_be_off == {"first_byte_timeout", "idle_timeout", "total_timeout", "heartbeat", "heartbeat_plain", "max_run_time", "max_keep_alive"}
    assert 'or "off"' in problem('[ollama]\nidle_timeout = "of"')


@pytest.mark.parametrize(
    ("literal", "size"),
    [
        ('"64MiB"', 64 * 2**20),
        ('"100MB"', 100_000_000),
        ('"2.5GB"', 2_500_000_000),
        ('"0.1GB"', 100_000_000),
        ('"1KiB"', 1024),
        ('"1kB"', 1000),
        ('"1KB"', 1000),
        ('"1GiB"', 2**30),
        ('"1TiB"', 2**40),
        ('"0.5TB"', 500_000_000_000),
        ('"7B"', 7),
        ("1048576", 1048576),
        ("1", 1),
    ],
)
def test_sizes(literal: str, size: int) -> None:
    got = value("server", "max_body", literal)
    assert got == size and isinstance(got, int)


@pytest.mark.parametrize(
    "literal",
    ['"64"', '"64M"', '"64mib"', '"64 MiB"', '"-1MB"', '""', '"0B"', '"0.1B"', '"2TiB"']
    + ["0", "-1", "1.5", "inf", "true", "[1]"],
)
def test_wrong_sizes(literal: str) -> None:
    message = problem(f"[server]\nmax_body = {literal}")
    assert message.startswith("hermes.toml:2: 'max_body' in [server] is ")
    assert message.endswith('wanted is a size such as "64MiB", "2.5GB" or a number of bytes, 1 byte to 1TiB')


@pytest.mark.parametrize(
    ("section", "key", "least", "most"),
    [
        ("defaults", "max_concurrency", 1, 256),
        ("defaults", "max_queue", 0, 100_000),
        ("server", "max_connections", 1, 100_000),
    ],
)
def test_counts(section: str, key: str, least: int, most: int) -> None:
    assert value(section, key, str(least)) == least
    assert value(section, key, str(most)) == most
    for literal in (str(least - 1), str(most + 1), "2.0", "true", '"2"', "nan", "[]"):
        message = problem(f"[{section}]\n{key} = {literal}")
        assert message.endswith(f"wanted is a whole number, {least} to {most}"), literal


def test_switches() -> None:
    assert loads("[server]\nmanage = true").server.manage is True and loads("[server]\nmanage = false").server.manage is False
    for literal in ('"true"', "1", "0", '"yes"', "[]"):
        with pytest.raises(ConfigError, match=r"'manage' in \[server\] is .*: wanted is true or false"):
            loads(f"[server]\nmanage = {literal}")
    for text, value in (("true", True), ("FALSE", False), (" True ", True)):
        assert loads("[server]\nmanage = false", environ={"HERMES_SERVER_MANAGE": text}).server.manage is value
    with pytest.raises(ConfigError, match='HERMES_SERVER_MANAGE is "1": wanted is true or false'):
        loads("", environ={"HERMES_SERVER_MANAGE": "1"})


def test_log_level() -> None:
    assert [value("log", "level", f'"{level}"') for level in ("debug", "INFO", "Warning", "error")] == [
        "debug",
        "info",
        "warning",
        "error",
    ]
    assert problem('[log]\nlevel = "warn"') == (
        "hermes.toml:2: 'level' in [log] is \"warn\": "
        'wanted is one of debug, info, warning, error (did you mean "warning"?)'
    )
    assert [loads("", environ={"HERMES_LOG_FORMAT": text}).log.format for text in ("", "json", " AUTO ")] == ["logfmt", "json", "auto"]
    assert [value("log", "format", f'"{form}"') for form in ("logfmt", "json", "auto", "JSON")] == ["logfmt", "json", "auto", "json"]
    assert problem('[log]\nformat = "jsno"').endswith('wanted is one of logfmt, json, auto (did you mean "json"?)')
    assert problem("[log]\nlevel = 3").endswith("'level' in [log] is 3: wanted is text in quotes")


@pytest.mark.parametrize(
    ("literal", "cost"),
    [('"low"', "low"), ('"medium"', "medium"), ('"high"', "high"), ('"2.5GB"', 2_500_000_000), ("7", 7)],
)
def test_memory_cost(literal: str, cost: str | int) -> None:
    assert loads(f"[models.m]\nmemory_cost = {literal}").models[0].memory_cost == cost


@pytest.mark.parametrize("literal", ['"huge"', '"High"', "0", "true", "1.5", "[]"])
def test_wrong_memory_cost(literal: str) -> None:
    assert "wanted is low, medium, high or a size" in problem(f"[models.m]\nmemory_cost = {literal}")


@pytest.mark.parametrize(("literal", "size"), [("4", 4), ("8192", 8192), ("16777216", 16777216), ('"ollama"', 0)])
def test_num_ctx(literal: str, size: int) -> None:
    assert value("defaults", "num_ctx", literal) == size
    assert loads(f"[defaults]\nnum_ctx = 2048\n[models.m]\nnum_ctx = {literal}").models[0].num_ctx == size


@pytest.mark.parametrize("literal", ["3", "0", "-1", "16777217", "8192.0", "true", '"8192"', '"Ollama"', '""', "[]", "nan"])
def test_wrong_num_ctx(literal: str) -> None:
    message = problem(f"[models.m]\nnum_ctx = {literal}")
    assert message.startswith("hermes.toml:2: 'num_ctx' in [models.m] is ")
    assert message.endswith('wanted is a whole number, 4 to 16777216, or "ollama"')


@pytest.mark.parametrize(
    ("literal", "kept"),
    [(f'"{text}"', text) for text in ("5m", "1h30m", "1.5h", ".5h", "5.m", "1s", "1000ms", "1500000us", "-1s", "-1m", "+5m", "2000000000ns")]
    + [('"1000000µs"', "1000000µs"), ('"1000000μs"', "1000000μs"), ('"2562047h"', "2562047h")]
    + [("300", 300), ("1", 1), ("1.5", 1.5), ("-1", -1), ("-0.5", -0.5), ("9e9", 9e9), ('"ollama"', "")],
)
def test_keep_alive(literal: str, kept: str | float) -> None:
    got = value("defaults", "keep_alive", literal)
    assert got == kept and type(got) is type(kept)
    assert loads(f'[defaults]\nkeep_alive = "2m"\n[models.m]\nkeep_alive = {literal}').models[0].keep_alive == kept


@pytest.mark.parametrize(
    ("literal", "wanted"),
    [(f'"{text}"', 'it has no unit, so Ollama would refuse it; wanted is "%ss" or a number' % text) for text in ("5", "-1", "+3", "0.5")]
    + [(f'"{text}"', "wanted is a time such as") for text in ("", " 5m", "5 m", "5M", "1d", "m", ".s", "--1s", "5m\\n", "1e3s", "٣s", "2562048h", "for ever")]
    + [(literal, "wanted is a time such as") for literal in ("true", "nan", "inf", "-inf", "1e10", "-1e10", "[]", "{}", "2024-01-01")]
    + [(literal, "shorter than 1s") for literal in ("0", "0.9", '"0"', '"0s"', '"-0"', '"999ms"', '"0h0m"')],
)
def test_wrong_keep_alive(literal: str, wanted: str) -> None:
    message = problem(f"[models.m]\nkeep_alive = {literal}")
    assert message.startswith("hermes.toml:2: 'keep_alive' in [models.m] is ") and wanted in message


def test_num_ctx_and_keep_alive_of_the_environment() -> None:
    def defaults(**environ: str) -> tuple[object, object]:
        found = loads("", environ={f"HERMES_DEFAULTS_{key.upper()}": text for key, text in environ.items()}).defaults
        return found.num_ctx, found.keep_alive

    assert defaults(num_ctx="8192", keep_alive="-1") == (8192, -1)
    assert defaults(num_ctx="ollama", keep_alive="10m") == (0, "10m")


def test_allow_cloud() -> None:
    assert value("ollama", "allow_cloud", "true") is True and value("ollama", "allow_cloud", "false") is False
    assert loads("", environ={"HERMES_OLLAMA_ALLOW_CLOUD": "True"}).ollama.allow_cloud is True
    for literal in ("1", '"true"', "[]"):
        assert problem(f"[ollama]\nallow_cloud = {literal}").endswith("wanted is true or false")


# --- where to listen, where Ollama is


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:11435", "127.0.0.1", 11435, "127.0.0.1:11435"),
        ("[::1]:11435", "::1", 11435, "[::1]:11435"),
        ("[0:0::1]:1", "::1", 1, "[::1]:1"),
        (":8080", "", 8080, ":8080"),
        ("0.0.0.0:65535", "0.0.0.0", 65535, "0.0.0.0:65535"),
        ("LocalHost:0", "localhost", 0, "localhost:0"),
        ("my_box.lan:80", "my_box.lan", 80, "my_box.lan:80"),
    ],
)
def test_listen(text: str, host: str, port: int, shown: str) -> None:
    server = loads(f'[server]\nlisten = "{text}"', environ=OPEN).server
    assert (server.host, server.port, server.listen) == (host, port, shown)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "no port"),
        ("127.0.0.1", "no port"),
        ("11435", "no port"),
        ("::1", "no port"),
        ("::1:8080", "no port"),
        ("::1:11435", "one host and one port"),
        ("[::1]", "no port"),
        ("a:b:1", "one host and one port"),
        ("h:", "a port from 0 to 65535"),
        ("h:65536", "a port from 0 to 65535"),
        ("h:-1", "a port from 0 to 65535"),
        ("h:+1", "a port from 0 to 65535"),
        ("h:٣", "a port from 0 to 65535"),
        ("h:1 ", "a port from 0 to 65535"),
        ("[::1]x:1", "one host and one port"),
        ("[127.0.0.1]:1", "an IPv6 address between the brackets"),
        ("127.0.0.256:1", "an IP address or a host name"),
        ("*:1", "an IP address or a host name"),
        ("a b:1", "an IP address or a host name"),
        ("http://h:1", "one host and one port"),
    ],
)
def test_wrong_listen(text: str, wanted: str) -> None:
    message = problem(f'[server]\nlisten = "{text}"')
    assert message.startswith("hermes.toml:2: 'listen' in [server] is ")
    assert wanted in message


URLS = [
    ("1.2.3.4", "http://1.2.3.4:11434"),
    ("gpu-box", "http://gpu-box:11434"),
    ("GPU-Box:5000", "http://gpu-box:5000"),
    (":5000", "http://127.0.0.1:5000"),
    ("h:", "http://h:11434"),
    ("http://h", "http://h:80"),
    ("https://h", "https://h:443"),
    ("HTTPS://h/", "https://h:443"),
    ("https://h:8443/ollama/api//", "https://h:8443/ollama/api"),
    ("h:5000/path/", "http://h:5000/path"),
    ("h/path", "http://h:11434/path"),
    ("h/a@b:c", "http://h:11434/a@b:c"),
    ("ollama.com", "https://ollama.com:443"),
    ("0.0.0.0", "http://127.0.0.1:11434"),
    ("0.0.0.0:5000", "http://127.0.0.1:5000"),
    ("http://0.0.0.0:5000", "http://127.0.0.1:5000"),
    ("::", "http://[::1]:11434"),
    ("[::]:5000", "http://[::1]:5000"),
    ("::1", "http://[::1]:11434"),
    ("[::1]", "http://[::1]:11434"),
    ("http://[0::1]:1/x", "http://[::1]:1/x"),
    ("  'h:1'  ", "http://h:1"),
    ("' h:1 '", "http://h:1"),
    ("http://", "http://127.0.0.1:80"),
]


@pytest.mark.parametrize(("text", "url"), URLS)
def test_url(text: str, url: str) -> None:
    assert loads(f'[ollama]\nurl = "{text}"').ollama.url == url
    assert loads("", environ={"OLLAMA_HOST": text}).ollama.url == url
    assert loads("", environ={"HERMES_OLLAMA_URL": text}).ollama.url == url
    assert base_url(url) == url, "normalised once is normalised for good"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "empty"),
        ("' '", "empty"),
        ("ftp://h", "http:// or https://"),
        ("://h", "http:// or https://"),
        ("unix:///run/ollama.sock", "http:// or https://"),
        ("http://h?x=1", "without query"),
        ("h/p?x", "without query"),
        ("h/p#x", "without query"),
        ("h:port", "a port from 1 to 65535"),
        ("h:0", "a port from 1 to 65535"),
        ("h:65536", "a port from 1 to 65535"),
        ("a:b:c", "one host and one port"),
        ("[::g]:1", "IPv6"),
        ("http://http://h", "one address"),
        ("h //x", "one address"),
        ("a b", "one address"),
        ("h/a b", "one address"),
        ("h/\\u0001", "one address"),
        ("hé", "one address"),
        ("-h", "an IP address or a host name"),
        ("1.2.3", "an IP address or a host name"),
    ],
)
def test_wrong_url(text: str, wanted: str) -> None:
    assert wanted in problem(f'[ollama]\nurl = "{text}"')


@pytest.mark.parametrize(
    "text", ["http://u:hunter2@h", "u:hunter2@h", "http://hunter2@h", "u:hun@ter2@h", "ftp://u:hunter2@h"]
)
def test_password_of_a_url_is_refused_and_not_shown(text: str) -> None:
    for message in (problem(f'[ollama]\nurl = "{text}"'), problem("", {"OLLAMA_HOST": text})):
        assert '"***@h"' in message.replace("http://", "").replace("ftp://", "")
        assert "hunter2" not in message and "ter2" not in message


def test_url_precedence() -> None:
    text, environ = '[ollama]\nurl = "file"', {"OLLAMA_HOST": "host", "HERMES_OLLAMA_URL": "own"}
    assert loads(text, environ=environ).ollama.url == "http://own:11434"
    assert loads(text, environ={"OLLAMA_HOST": "host"}).ollama.url == "http://file:11434"
    assert loads(text, environ={"OLLAMA_HOST": "no such : host"}).ollama.url == "http://file:11434"
    assert loads("", environ={"OLLAMA_HOST": "host"}).ollama.url == "http://host:11434"
    assert loads("", environ={"OLLAMA_HOST": ' "" '}).ollama.url == "http://127.0.0.1:11434"
    assert problem("", {"OLLAMA_HOST": "a:b:c"}).startswith('environment: OLLAMA_HOST is "a:b:c": ')


@pytest.mark.parametrize(
    ("listen", "url", "own"),
    [
        ("127.0.0.1:11435", "127.0.0.1:11435", True),
        ("127.0.0.1:11435", "localhost:11435", True),
        ("127.0.0.1:11435", "http://[::1]:11435", True),
        ("127.0.0.1:11435", "127.9.9.9:11435", True),
        ("localhost:11435", "a.localhost:11435/x", True),
        (":11435", "localhost:11435", True),
        ("0.0.0.0:11435", "[::ffff:127.0.0.1]:11435", True),
        ("[::]:11435", ":11435", True),
        ("10.0.0.1:11435", "10.0.0.1:11435", True),
        ("Box:11435", "http://bOX:11435", True),
        (":80", "http://localhost", True),
        ("127.0.0.1:11435", "127.0.0.1:11436", False),
        ("127.0.0.1:11435", "10.0.0.1:11435", False),
        ("10.0.0.1:11435", "127.0.0.1:11435", False),
        ("10.0.0.1:11435", "10.0.0.2:11435", False),
        (":11435", "10.0.0.1:11435", False),
        ("127.0.0.1:0", "127.0.0.1:11435", False),
    ],
)
def test_own_address(listen: str, url: str, own: bool) -> None:
    text = f'[ollama]\nurl = "{url}"\n[server]\nlisten = "{listen}"'
    if not own:
        assert loads(text, environ=OPEN).ollama.url == base_url(url)
        return
    message = problem(text, OPEN)
    assert message.startswith(f"hermes.toml:2: 'url' in [ollama] is \"{url}\": {base_url(url)} is Hermes's own")
    assert "call itself for ever" in message and "[ollama] url" in message and "OLLAMA_HOST" in message


def test_port_zero_is_nobodys_own() -> None:
    assert not is_own("http://127.0.0.1:0", "127.0.0.1", 0)


def test_own_address_names_what_made_the_loop() -> None:
    assert problem("", {"OLLAMA_HOST": "0.0.0.0:11435"}).startswith('environment: OLLAMA_HOST is "0.0.0.0:11435": ')
    assert problem('[server]\nlisten = ":11434"', OPEN).startswith("hermes.toml:2: 'listen' in [server] is \":11434\": ")
    assert problem("", OPEN | {"HERMES_SERVER_LISTEN": ":11434"}).startswith("environment: HERMES_SERVER_LISTEN is ")


# --- the environment


def test_environment_over_file_over_default() -> None:
    text = '[server]\nmax_body = "1MB"\n[defaults]\nmax_queue = 3\n[models.m]'
    environ = {
        "HERMES_SERVER_OPEN": " True ",
        "HERMES_DEFAULTS_MAX_QUEUE": " 5 ",
        "HERMES_SERVER_LISTEN": ":0",
        "HERMES_OLLAMA_CONNECT_TIMEOUT": "250ms",
        "HERMES_OLLAMA_IDLE_TIMEOUT": "off",
        "HERMES_SERVER_DRAIN_TIMEOUT": "30",
        "HERMES_SERVER_SEND_TIMEOUT": "1.5",
        "HERMES_LOG_LEVEL": "DEBUG",
    }
    got = loads(text, environ=environ)
    assert (got.defaults.max_queue, got.models[0].max_queue) == (5, 5)
    assert (got.server.max_body, loads(text, environ={"HERMES_SERVER_MAX_BODY": "7"}).server.max_body) == (1_000_000, 7)
    assert (got.server.listen, got.ollama.connect_timeout, got.log.level) == (":0", 0.25, "debug")
    assert (got.server.drain_timeout, got.server.send_timeout, got.ollama.idle_timeout) == (30.0, 1.5, math.inf)


def test_every_fixed_setting_has_a_variable() -> None:
    for setting in SETTINGS:
        if setting.section not in NAMED:
            assert problem("", {f"HERMES_{setting.section.upper()}_{setting.key.upper()}": "a:b:c"}), setting


@pytest.mark.parametrize(
    ("variable", "text", "wanted"),
    [
        ("HERMES_DEFAULTS_MAX_QUEUE", "many", "a whole number, 0 to 100000"),
        ("HERMES_DEFAULTS_MAX_QUEUE", "1.0", "a whole number, 0 to 100000"),
        ("HERMES_DEFAULTS_MAX_QUEUE", "9" * 5000, "a whole number, 0 to 100000"),
        ("HERMES_DEFAULTS_MAX_CONCURRENCY", "0", "a whole number, 1 to 256"),
        ("HERMES_SERVER_HEAD_TIMEOUT", "nan", "a time such as"),
        ("HERMES_SERVER_HEAD_TIMEOUT", "-1", "a time such as"),
        ("HERMES_SERVER_LISTEN", "11435", "no port"),
        ("HERMES_SERVER_OPEN", "1", "true or false"),
        ("HERMES_SERVER_OPEN", "yes", "true or false"),
    ],
)
def test_wrong_variable(variable: str, text: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {variable: text})
    [only] = caught.value.problems
    assert (only.file, only.line, only.key) == ("environment", None, variable)
    assert str(only).startswith(f"environment: {variable} is ") and wanted in only.text
    assert len(str(only)) < 250


@pytest.mark.parametrize(
    "environ",
    [
        {"HERMES_HOME": "/x", "HERMES_INSTALL_DIR": "/y", "HERMES_CONFIG": "/z", "HERMES_SERVER_PORT": "x"},
        {"HERMES_MODELS_MODEL": "a b", "HERMES_MODELS_MAX_QUEUE": "x", "HERMES_SERVER": "x", "hermes_log_level": "x"},
        {"HERMES_DEFAULTS_MAX_QUEUE": "", "HERMES_OLLAMA_URL": " ", "OLLAMA_HOST": ""},
    ],
)
def test_unknown_and_empty_variables_are_ignored(environ: dict[str, str]) -> None:
    assert load(None, environ) == load()


# --- models


def test_models_fall_back_to_defaults() -> None:
    got = loads(
        '[models."llama3.2:1b"]\nqueue_timeout = "5s"\n'
        "[defaults]\nmax_concurrency = 3\nmax_queue = 9\nqueue_timeout = 7\n"
        '[models.gemma]\nmodel = " gemma3:270m "\nmax_concurrency = 2\nmax_queue = 0\nmemory_cost = "medium"'
    )
    assert got.models == (
        ModelSettings("llama3.2:1b", "llama3.2:1b", 3, 9, 5.0, None),
        ModelSettings("gemma", "gemma3:270m", 2, 0, 7.0, "medium"),
    )


@pytest.mark.parametrize(
    "text",
    [
        '[models.gemma]\nmodel = "gemma"',
        '[models.gemma]\nmodel = "library/Gemma:latest"',
        '[models.a]\nmodel = "m:1b"\n[models.b]\nmodel = "m:7b"\n[models.m]',
        '[models.a]\nmodel = "m:cloud"\n[models.m]',
    ],
)
def test_names_that_do_not_clash(text: str) -> None:
    assert len(loads(text).models) == text.count("[models")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[models.a]\nmodel = "gemma3"\n\n[models.b]\nmodel = "library/GEMMA3:latest"',
            'hermes.toml:4: [models.b] and [models.a] (line 1) are both for Ollama\'s "library/GEMMA3:latest"',
        ),
        (
            "[models.gemma]\n[models.Gemma]",
            "hermes.toml:2: [models.Gemma] and [models.gemma] (line 1) are both for Ollama's \"Gemma\"",
        ),
        (
            '[models.gemma]\nmodel = "gemma3"\n[models.gemma3]',
            "hermes.toml:3: [models.gemma3] and [models.gemma] (line 1) are both for Ollama's \"gemma3\"",
        ),
        (
            '[models.gemma3]\nmodel = "other"\n[models.gemma]\nmodel = "gemma3"',
            'hermes.toml:3: [models.gemma] and [models.gemma3] (line 1) would both answer to "gemma3"',
        ),
        (
            '[models.gemma]\nmodel = "gemma3"\n[models.gemma3]\nmodel = "other"',
            'hermes.toml:3: [models.gemma3] and [models.gemma] (line 1) would both answer to "gemma3"',
        ),
        (
            '[models."m:latest"]\nmodel = "x"\n[models.m]\nmodel = "y"',
            'hermes.toml:3: [models.m] and [models."m:latest"] (line 1) would both answer to "m"',
        ),
    ],
)
def test_names_that_clash(text: str, expected: str) -> None:
    assert problem(text).startswith(expected)


@pytest.mark.parametrize("name", ["", " ", "a b", "m@sha256:abc", "a/b/c/d", "\\u0000"])
def test_malformed_model_names(name: str) -> None:
    message = problem(f'[models.m]\nmodel = "{name}"')
    assert message.startswith("hermes.toml:2: 'model' in [models.m] is ") and "not a model name" in message
    message = problem(f'\n[models."{name}"]\nmodel = "m"')
    assert message.startswith(f'hermes.toml:2: [models."{name}"]: "{name}" is not a model name')


def test_malformed_names_do_not_hide_other_problems() -> None:
    text = '[models.a]\nmodel = "x y"\n[models."b b"]\nmax_queue = -1\n[models.c]\nmodel = "d"\n[models.d]'
    lines = [message.split(" ")[0] for message in problems(text)]
    assert lines == ["hermes.toml:2:", "hermes.toml:3:", "hermes.toml:4:", "hermes.toml:7:"]


# --- unknown keys, wrong tables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[models."llama3.2"]\nmax_que = 3',
            "hermes.toml:2: unknown key 'max_que' in [models.\"llama3.2\"] (did you mean 'max_queue'?)",
        ),
        ("[server]\nlissten = 3", "hermes.toml:2: unknown key 'lissten' in [server] (did you mean 'listen'?)"),
        ("[server]\nMAX_BODY = 3", "hermes.toml:2: unknown key 'MAX_BODY' in [server] (did you mean 'max_body'?)"),
        ("[ollama]\nidle = 3", "hermes.toml:2: unknown key 'idle' in [ollama] (did you mean 'idle_timeout'?)"),
        ("[server]\nmax = 3", "hermes.toml:2: unknown key 'max' in [server]"),
        ("[server]\nzzz = 3", "hermes.toml:2: unknown key 'zzz' in [server]"),
        ("[server]\nmax_queue = 3", "hermes.toml:2: unknown key 'max_queue' in [server] (it belongs in [defaults])"),
        ("[models.m]\nurl = 3", "hermes.toml:2: unknown key 'url' in [models.m] (it belongs in [ollama])"),
        ("[serv]\nport = 1", "hermes.toml:1: unknown section [serv] (did you mean [server]?)"),
        ("[[serv]]", "hermes.toml:1: unknown section [serv] (did you mean [server]?)"),
        ("[zzz]", "hermes.toml:1: unknown section [zzz]"),
        ('listen = ":1"', "hermes.toml:1: unknown key 'listen' outside a section (it belongs in [server])"),
        ("zzz = 1", "hermes.toml:1: unknown key 'zzz' outside a section"),
        (
            "[models.llama3.2]\nmax_queue = 1",
            "hermes.toml:1: unknown key '2' in [models.llama3] (a name with a dot needs quotes: [models.\"llama3.2\"])",
        ),
        ('[server]\n"\\u001b[31m" = 1', "hermes.toml:2: unknown key '\\x1b[31m' in [server]"),
        ("server = 3", "hermes.toml:1: 'server' is 3: wanted is a table, [server]"),
        ("[[ollama]]", "hermes.toml:1: 'ollama' is an array: wanted is a table, [ollama]"),
        ("models = []", "hermes.toml:1: 'models' is an array: wanted is a table, [models]"),
        ("[models]\ngemma = true", "hermes.toml:2: 'models.gemma' is true: wanted is a table, [models.gemma]"),
        ("[[models.gemma]]", "hermes.toml:1: 'models.gemma' is an array: wanted is a table, [models.gemma]"),
        ("[server]\nlisten.port = 1", "hermes.toml:2: 'listen' in [server] is a table: wanted is text in quotes"),
        ("server = { listen = 1 }", "hermes.toml:1: 'listen' in [server] is 1: wanted is text in quotes"),
    ],
)
def test_structure(text: str, expected: str) -> None:
    assert problem(text) == expected


def test_keys_of_problems() -> None:
    with pytest.raises(ConfigError) as caught:
        loads('[models."llama3.2"]\nmax_que = 3', file="/etc/h.toml")
    [only] = caught.value.problems
    assert (only.file, only.line, only.key) == ("/etc/h.toml", 2, 'models."llama3.2".max_que')


def test_every_problem_is_reported_in_order() -> None:
    text = """\
[server]
listen = 3
lisen = 3
max_body = "1"
[zzz]
[models.a]
max_queue = -1
[models.b]
model = "a"
[ollama]
url = "ftp://x"
total_timeout = true
"""
    environ = {"HERMES_LOG_LEVEL": "loud", "HERMES_SERVER_MAX_CONNECTIONS": "0"}
    wheres = [message.partition(": ")[0] for message in problems(text, environ)]
    assert wheres == [f"hermes.toml:{line}" for line in (2, 3, 4, 5, 7, 8, 11, 12)] + ["environment"] * 2


def test_values_are_shown_short() -> None:
    assert f'"{"x" * 60}": ' in problem(f'[log]\nlevel = "{"x" * 60}"')
    assert f'"{"x" * 60}...": ' in problem(f'[log]\nlevel = "{"x" * 61}"')
    assert len(problem(f'[server]\nlisten = "{"x" * 5000}"')) < 250


# --- files


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[server]\nlisten = \n", 2, "Invalid value (at line 2, column 10)"),
        ("a = 1\nb = [\n", 2, "Invalid value (at end of document)"),
        ("[log]\nlevel = 'info'\nlevel = 'debug'\n[server]", 3, "Cannot overwrite a value (at line 3, column 16)"),
        ("[log]\n[server]\n[log]", 3, "twice"),
        ("[log]\r\n\r\n=", 3, "at line 3, column 1"),
        ("é = 1", 1, "Invalid statement (at line 1, column 1)"),
    ],
)
def test_not_toml(text: str, line: int, message: str) -> None:
    got = problem(text)
    assert got.startswith(f"hermes.toml:{line}: not valid TOML: ") and message in got


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000])
def test_toml_that_is_too_much_for_the_parser(text: str) -> None:
    assert problem(text).startswith("hermes.toml: not valid TOML: ")


def test_broken_file_still_checks_the_environment_but_not_the_loop() -> None:
    environ = {"HERMES_LOG_LEVEL": "loud", "OLLAMA_HOST": "127.0.0.1:11435"}
    first, second = problems("[", environ)
    assert first.startswith("hermes.toml:1: not valid TOML") and second.startswith("environment: HERMES_LOG_LEVEL")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "h.toml"
    path.write_bytes(b"\xef\xbb\xbf[log]\r\nlevel = 'error'\r\n")
    assert (load(str(path)).log.level, load(str(path)).path) == ("error", str(path))
    path.write_bytes(b"")
    assert load(str(path)) == replace(load(), path=str(path))
    path.write_bytes(b"#\n" * (2**19 + 1))
    unreadable = {
        str(path): "larger than 1048576 bytes",
        str(tmp_path): "Is a directory",
        str(tmp_path / "none.toml"): "No such file or directory",
        "": "No such file or directory",
        "a\0b": "null byte",
    }
    for name, text in unreadable.items():
        with pytest.raises(ConfigError) as caught:
            load(name)
        [only] = caught.value.problems
        assert (only.file, only.line, only.key) == (name, None, "")
        assert only.text.startswith("cannot read the file: ") and text in only.text


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "h.toml"
    path.write_bytes(b"[log]\n# caf\xe9\n")
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    assert caught.value.problems == (Problem(str(path), 2, "", "not UTF-8 text (byte 11)"),)


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cwd, xdg, home, etc = (tmp_path / name for name in ("cwd", "xdg", "home", "etc"))
    places = [cwd, xdg / "hermes-gateway", home / ".config" / "hermes-gateway"]
    for place in places:
        place.mkdir(parents=True)
        (place / "hermes.toml").touch()
    environ = {"HERMES_CONFIG": "/no/such.toml", "XDG_CONFIG_HOME": str(xdg), "HOME": str(home)}
    assert find(environ, str(cwd)) == "/no/such.toml"
    del environ["HERMES_CONFIG"]
    assert find(environ, str(cwd)) == str(cwd / "hermes.toml")
    monkeypatch.chdir(cwd)
    assert find(environ) == "hermes.toml"
    assert find({**environ, "HERMES_CONFIG": ""}) == "hermes.toml"
    (cwd / "hermes.toml").unlink()
    assert find(environ) == str(xdg / "hermes-gateway" / "hermes.toml")
    del environ["XDG_CONFIG_HOME"]
    assert find(environ) == str(home / ".config" / "hermes-gateway" / "hermes.toml")
    (home / ".config" / "hermes-gateway" / "hermes.toml").unlink()
    tried: list[str] = []

    def exists(path: str) -> bool:
        tried.append(path)
        return False

    monkeypatch.setattr(config.os.path, "lexists", exists)
    assert find(environ) is None
    assert (tried[0], tried[-1]) == ("hermes.toml", "/etc/hermes/hermes.toml")
    assert find({"XDG_CONFIG_HOME": "relative"}) is None
    assert not any("relative" in path for path in tried), "a relative XDG_CONFIG_HOME is to be ignored"


def test_find_does_not_pass_over_a_directory(tmp_path: Path) -> None:
    (tmp_path / "hermes.toml").mkdir()
    found = find({}, str(tmp_path))
    assert found == str(tmp_path / "hermes.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(found)


# --- line numbers


def test_lines() -> None:
    text = r'''# comment with [brackets] and "quotes
top = 1
[server] # comment
listen = "a # no comment [x]"   # key = 1
text = """
not = 1
[not]
\""" still """""
literal = """" a quote first, """
raw = \'''
[not]
not = 1'''.replace("\\'", "'") + r"""''''
list = [ # [
  "]", ']', { x = "}" },
  [1, 2], # ]
]
after.list = 3

[ models . "llama3.2:1b" ]
max_queue = 4
'quo.ted' . "k\u0065y" = 5
inline = { a = 1, b = { c = "x" } }
[[array]]
x = 1
[[array]]
x = 2
[models.gemma]
last = 1"""
    tomllib.loads(text)
    expected = {
        ("top",): 2,
        ("server",): 3,
        ("server", "listen"): 4,
        ("server", "text"): 5,
        ("server", "literal"): 9,
        ("server", "raw"): 10,
        ("server", "list"): 13,
        ("server", "after"): 17,
        ("server", "after", "list"): 17,
        ("models",): 19,
        ("models", "llama3.2:1b"): 19,
        ("models", "llama3.2:1b", "max_queue"): 20,
        ("models", "llama3.2:1b", "quo.ted"): 21,
        ("models", "llama3.2:1b", "quo.ted", "key"): 21,
        ("models", "llama3.2:1b", "inline"): 22,
        ("array",): 23,
        ("array", "x"): 24,
        ("models", "gemma"): 27,
        ("models", "gemma", "last"): 28,
    }
    assert scan(text) == expected
    assert scan(text.replace("\n", "\r\n")) == expected
    assert line_of(expected, ("models", "llama3.2:1b", "inline", "b", "c")) == 22
    assert line_of(expected, ("models", "llama3.2:1b", "queue")) == 19
    assert line_of(expected, ("nowhere", "at all")) is None


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", " \t\r\n# x\n", "[a]", "a=1"])
def test_lines_of_almost_nothing(text: str) -> None:
    assert scan(text) == {key: 1 for key in [("a",)] if "a" in tomllib.loads(text)}
