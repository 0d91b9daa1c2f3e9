"""README.md, CHANGELOG.md and Dockerfile say what is so: they are held to the code, in both directions where there are two.

A table of the README is found by its headings; what stands in its cells between backticks is what is compared.
"""

import argparse
import ast
import inspect
import itertools
import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

import hermes
from hermes import application, cli, errors
from hermes.config import SETTINGS, ConfigError, loads
from hermes.config.settings import KEY_PREFIX, NAMED
from hermes.dispatch import limits
from hermes.errors import HermesError
from hermes.frontend import http1
from hermes.frontend.ownbody import KINDS
from hermes.frontend.live import Picture
from hermes.frontend.router import Router
from hermes.observe import status
from hermes.workers import ollama, restart

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
CODE = [block for _, block in BLOCKS] + re.findall(r"`([^`\n]+)`", PROSE)


def rows(*headings: str) -> list[list[str]]:
    """The cells of every table with these headings, without backticks around a cell that is one code span."""
    found, inside = [], False
    for line in PROSE.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells[:len(headings)] == list(headings):
            inside = True
        elif inside and not set("".join(cells)) <= set("-: "):
            found.append([cell[1:-1] if re.fullmatch(r"`[^`]+`", cell) else cell for cell in cells])
    assert found, f"no table {headings}"
    return found


def spans(cell: str) -> list[str]:
    """The code spans of a cell; `rows` has bared a cell that is a single one."""
    return re.findall(r"`([^`]+)`", cell) or [cell]


@pytest.fixture(scope="module")
def router() -> Router:
    return application.Application._router(SimpleNamespace(dispatcher=None, live=None, _whose=None))


def section(title: str) -> str:
    return re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)[1]


# -- configuration -------------------------------------------------------------------------------------------------


def test_the_table_of_keys_is_the_settings() -> None:
    expected = [[f"[{s.section}.NAME]" if s.section in NAMED else f"[{s.section}]", s.key, s.default or "—", s.doc] for s in SETTINGS]
    table = "\n".join(f"| `{a}` | `{b}` | {c if c == '—' else f'`{c}`'} | {d} |" for a, b, c, d in expected)
    assert rows("Section", "Key", "Default", "Meaning") == expected, f"the table should be\n{table}"


def test_every_variable_exists() -> None:
    known = {setting.variable for setting in SETTINGS} | {"HERMES_CONFIG", "HERMES_KEY", "HERMES_COMPAT_NODE"}
    text = README + DOCKERFILE + (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bHERMES_[A-Z_]*[A-Z]\b", text))
    assert named and named <= known
    assert set(re.findall(r"\bOLLAMA_(?:HOST|ORIGINS)\b", README)) == {s.fallback for s in SETTINGS if s.fallback}


def test_the_example_is_a_good_configuration() -> None:
    examples = [block for kind, block in BLOCKS if kind == "toml"]
    assert examples
    for settings in map(loads, examples):
        assert settings.models or settings.clients or settings.server.origins


def test_the_sample_of_a_key_is_what_the_command_prints() -> None:
    shown = re.search(r"^\$ python -m hermes key (\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    digest = re.search(r"\b[0-9a-f]{64}\b", shown[2])[0]
    # Without the key itself: a whole pair would be copied by somebody, and known to everybody.
    assert shown[2] == cli.NEW_KEY.format(key=f"{KEY_PREFIX}…", table=f"[clients.{shown[1]}]", hash=digest) + "\n"
    assert f'[clients.{shown[1]}]\nkey_sha256 = "{digest}"\nmanage' in README, "the example goes on with that key"


def test_the_sample_of_check_is_what_check_says() -> None:
    said = re.search(r"^hermes\.toml:(\d+): (.*)$", README, re.MULTILINE)
    with pytest.raises(Exception) as caught:
        loads("\n" * (int(said[1]) - 2) + "[models.gemma]\nmax_que = 2\n", "hermes.toml")
    assert str(caught.value) == said[0]


# -- routes --------------------------------------------------------------------------------------------------------


def test_the_tables_of_routes_are_the_router(router: Router) -> None:
    told = [(method, path) for methods, path, *_ in rows("Method", "Path") for method in spans(methods)]
    assert sorted(told) == sorted((route.method, route.path) for route in router.routes)


def test_every_path_in_a_table_is_a_route(router: Router) -> None:
    paths = {route.path for route in router.routes}
    named = {word for line in PROSE.splitlines() if line.startswith("|") for span in re.findall(r"`([^`]+)`", line)
             for word in span.split() if re.match(r"/(?:api|v1|livez|readyz)\b", word)}
    assert len(named) > 15
    assert named <= paths


def test_every_path_in_prose_is_a_route_or_a_family(router: Router) -> None:
    paths = {route.path for route in router.routes}
    for span in re.findall(r"`(?:GET |POST )?(/[\w./{}-]*)`", PROSE):
        if span.startswith("/etc/"):
            continue
        family = span.endswith("/") and any(path.startswith(span) for path in paths)
        assert span in paths or family, span


def test_every_curl_line_reaches_a_route(router: Router) -> None:
    reached = set()
    for line in re.findall(r"^ *(?:\$ )?(curl .*)$", "\n".join(block for _, block in BLOCKS), re.MULTILINE):
        words = shlex.split(line)
        method = words[words.index("-X") + 1] if "-X" in words else "POST" if "-d" in words else "GET"
        path = re.sub(r"^http://[^/]+|\?.*", "", next(word for word in words if word.startswith("http://")))
        route, _ = router.match(method, path)
        reached.add(route.path)
        if "-d" in words:
            assert set(json.loads(words[words.index("-d") + 1])) <= set(KINDS)
    own = {path for _, path, text in rows("Method", "Path", "What it does")}
    assert own == reached, "each of Hermes's own endpoints has a curl line"


def test_the_table_of_fields_is_what_is_read() -> None:
    names = {str: "string", list: "array", dict: "object", bool: "boolean", int: "number", float: "number"}
    told = {field: set(re.sub(r" of .*", "", kind).split(" or ")) for field, kind, _ in rows("Field", "Type", "Meaning")}
    real = {field: {names[t] for t in (kind if isinstance(kind, tuple) else (kind,))} for field, (kind, _) in KINDS.items()}
    assert told == real


def test_the_sample_of_the_status_has_its_shape() -> None:
    sample = json.loads(re.search(r"^\$ curl \S+/v1/status\n(\{\n.*?^\})$", README, re.MULTILINE | re.DOTALL)[1])
    fields = {field: 1 for field in status.PoolSnapshot.__dataclass_fields__}
    pool = status.PoolSnapshot(**fields | {"name": "m", "model": "m", "closed": None} | ({"pids": (1, 2)} if "pids" in fields else {}))
    seen = status.Seen(True, "1", {}, 0.0, 0.0, None)
    real = status.picture(status.Facts("serving", 0.0, "http://x", {}, {}, [Picture("r", "c", 1, "m", "m", "waiting", 0, 1.0, 0)]), [pool], seen)
    assert _shape(sample) == _shape(json.loads(json.dumps(real)))
    assert sample["version"] == hermes.__version__


def _shape(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shape(one) for key, one in value.items()}
    return [_shape(value[0])] if isinstance(value, list) and value else None


def test_the_samples_of_generation_have_the_fields_of_the_code() -> None:
    records = [json.loads(line.removeprefix("data: ")) for _, block in BLOCKS for line in block.splitlines()
               if re.match(r'(data: )?\{"id":"llm-[0-9a-f]{24}"', line)]
    assert len(records) >= 8
    answer = inspect.getsource(sys.modules["hermes.frontend.own"])
    for key in {key for record in records for key in record} | set(records[0]["usage"]) | set(records[0]["timing"]):
        assert f'"{key}"' in answer, key


# -- errors --------------------------------------------------------------------------------------------------------


def _subclasses(cls: type) -> set[type]:
    return {cls}.union(*map(_subclasses, cls.__subclasses__()))


def _reachable() -> set[type]:
    """What a client can be told. The root says "internal_error": only if the code that answers clients ever makes one."""
    front = "".join((ROOT / "hermes/frontend" / name).read_text(encoding="utf-8") for name in ("connection.py", "server.py"))
    made = {node.func.id for node in ast.walk(ast.parse(front)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    ours = {cls for cls in _subclasses(HermesError) if cls.__module__ == errors.__name__}
    return ours if "HermesError" in made else ours - {HermesError}


def test_the_table_of_errors_is_the_classes() -> None:
    told = [(int(code), word, retry) for code, word, _, _, retry in rows("Status", "Code", "When", "What to do", "`x-should-retry`")]
    assert sorted(told) == sorted({(cls.status, cls.code, "false" if cls.futile else "") for cls in _reachable()})


def test_every_busy_error_has_the_promised_header() -> None:
    assert "Every 503 carries `Retry-After`, 1 to 59 seconds, and so does every 429" in README
    assert all(cls.retry_after for cls in _reachable() if cls.status in (429, 503))
    assert HermesError("", retry_after=1e6).retry_after == 59 and HermesError("", retry_after=0).retry_after == 1


@pytest.mark.parametrize(("path", "shape"), [("/", "text"), ("/api/chat", "text"), ("/v1/llm/x", "text"), ("/v1/status", "text"),
                                             ("/livez", "text"), ("/v1/chat/completions", "object"), ("/v1/x", "object"),
                                             ("/v1/messages", "anthropic"), ("/v1/messages/count_tokens", "anthropic")])
def test_errors_have_the_promised_shape(router: Router, path: str, shape: str) -> None:
    body = json.loads(router.dialect(path).error(errors.QueueFull("full"), "req_1").body)
    assert body == {"text": {"error": "full"}, "anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": "full"}, "request_id": "req_1"},
                    "object": {"error": {"message": "full", "type": "api_error", "param": None, "code": "queue_full"}}}[shape]
    if shape == "object":
        assert json.loads(router.dialect(path).error(errors.BadRequest("bad")).body)["error"]["code"] is None


def test_the_figures_are_those_of_the_code() -> None:
    assert f"{restart.INTENSITY} failed restarts in {restart.PERIOD:g} s" in README
    assert f"After {limits.WRONG_KEYS} wrong ones in a minute" in README and f"{limits.WRONG_KEYS} wrong keys in a minute" in README
    assert all(f"`{name}: {value}`" in README for name, value in limits.Allowance(60, 59, 60.0, True).fields())
    assert f"close that model's pool for {restart.PROBE:g} s" in README
    assert ollama.CONNECT_ATTEMPTS == 3 and "Three attempts" in README and "in three attempts" in README
    assert f"The request line is over {http1.LINE_MAX // 1024} KiB" in README
    assert (f"A header over {http1.FIELD_MAX // 1024} KiB, more than {http1.FIELDS_MAX} of them, "
            f"or a head over {http1.HEAD_MAX // 1024} KiB") in README


# -- commands ------------------------------------------------------------------------------------------------------


def _parsers() -> dict[str, argparse.ArgumentParser]:
    return next(action.choices for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))


def test_every_command_exists_and_is_told() -> None:
    named = {name for code in CODE for name in re.findall(r"python3? (?:-I -S )?(?:-m hermes|hermes\.pyz) +([a-z]\w*)", code)}
    assert named == set(cli.COMMANDS) == set(_parsers())


def test_the_table_of_commands_has_every_option() -> None:
    told = {words[3] if words[3:] else "": set(re.findall(r"\[(--[a-z-]+)", cell))
            for cell, _ in rows("Command", "What it does") for words in [cell.split()]}
    real = {name: {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
            for name, parser in _parsers().items()}
    assert told == real | {"": set()}


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    real = {value for name, value in vars(cli).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code, _ in rows("Exit code", "Meaning")} == real


def test_the_table_of_signals_is_what_is_heard() -> None:
    told = {span for cell, _ in rows("Signal", "Effect") for span in spans(cell) if span.startswith("SIG")}
    source = inspect.getsource(application.Application._listen_to_signals)
    assert told == set(re.findall(r"signal\.(SIG[A-Z]+)\b", source)) - {"SIGCHLD"}


def test_every_make_target_exists() -> None:
    targets = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
    named = {name for code in CODE for name in re.findall(r"(?:^|\$ )make ([a-z]+)", code)}
    assert named and named <= targets
    assert {cell.removeprefix("make ") for cell, _ in rows("Make target", "What it does")} == targets - {"help"}


def test_the_output_of_make_test_is_its_recipe() -> None:
    shown = re.search(r"^\$ make test\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1].splitlines()
    recipe = "".join(re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1] for target in ("$(VENV)/ready", "test"))
    for name, value in (("$(PYTHON)", "python3"), ("$(BIN)", ".venv/bin"), ("$(VENV)", ".venv"), ("$@", ".venv/ready")):
        recipe = recipe.replace(name, value)
    assert shown == [line.strip() for line in recipe.splitlines()]


def test_the_demo_prints_what_is_shown() -> None:
    from hermes.demo import WORDS
    shown = re.search(r"^\$ python -m hermes demo\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1]
    hermes_url, ollama_url = re.search(r"Hermes is at (\S+), in front of a stand-in Ollama at (\S+)\. ", shown).groups()
    assert shown == WORDS.format(hermes=hermes_url, ollama=ollama_url)


def test_every_client_has_a_test() -> None:
    named = [tuple(row[-1].split("::")) for row in rows("Client", "Version")]
    tests = [(f"tests/compat/{path.name}", name) for path in (ROOT / "tests/compat").glob("test_*.py")
             for name in re.findall(r"^class (Test\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)]
    assert sorted(named) == sorted(tests) and all((ROOT / path).is_file() for path, _ in named)


# -- the rest of it ------------------------------------------------------------------------------------------------


def test_the_rooms_are_where_it_says() -> None:
    told = {path for path, _ in rows("Path", "What is there")}
    assert all((ROOT / path).exists() for path in told)
    assert all((ROOT / path).exists() for path in re.findall(r"`((?:hermes|tests)/[\w./]+)`", PROSE))
    rooms = {f"hermes/{init.parent.name}/" for init in (ROOT / "hermes").glob("*/__init__.py")}
    assert rooms <= told


def test_no_sentence_is_left_over_from_another_place() -> None:
    assert "not Nous Research's Hermes Agent" in README
    for issue in ("7758", "2004", "3144"):
        assert f"https://github.com/ollama/ollama/issues/{issue}" in README
    assert "{model}" in README
    assert not re.search(r"/(?:work|tmp|root|home)/", README)


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    newest = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    label = re.search(r'org\.opencontainers\.image\.version="([^"]+)"', DOCKERFILE)[1]
    assert {project["version"], newest, label} == {hermes.__version__}
    assert project["dependencies"] == []
    assert project["requires-python"] == ">=3.11" and "Python 3.11 or newer" in README


# -- the image -----------------------------------------------------------------------------------------------------


def instructions() -> dict[str, str]:
    """Dockerfile's instructions, the last of each kind; continued lines joined, comments left out."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return dict(line.split(None, 1) for line in text.splitlines() if line.strip())


def test_the_image_has_no_pip_and_no_root() -> None:
    lines = instructions()
    assert not re.search(r"\bpip\b|apt|curl |wget", "\n".join(lines.values()))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", lines["USER"])
    assert lines["FROM"] == "${PYTHON_IMAGE}" and re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+-slim$", DOCKERFILE, re.MULTILINE)
    assert lines["USER"].partition(":")[0] in README


def test_the_image_starts_hermes_directly() -> None:
    lines = instructions()
    entry, command = json.loads(lines["ENTRYPOINT"]), json.loads(lines["CMD"])
    assert entry == ["python3", "-m", "hermes"] and command[0] in cli.COMMANDS
    assert lines["STOPSIGNAL"] == "SIGTERM"
    assert lines["COPY"].split()[1] == "/app/hermes/" and "PYTHONPATH=/app" in lines["ENV"]
    assert "--invalidation-mode unchecked-hash" in lines["RUN"]


def test_the_image_listens_where_it_says() -> None:
    lines = instructions()
    listen = re.search(r"HERMES_SERVER_LISTEN=(\S+)", lines["ENV"])[1]
    with pytest.raises(ConfigError, match="HERMES_SERVER_OPEN=true"):
        loads("", environ={"HERMES_SERVER_LISTEN": listen})
    assert "HERMES_SERVER_OPEN" not in lines["ENV"], "that is for whoever publishes the port to say"
    [run] = re.findall(r"^\$ (docker run .*)$", README, re.MULTILINE)
    assert re.search(r" -p 127\.0\.0\.1:", run)
    given = dict(word.split("=", 1) for flag, word in itertools.pairwise(shlex.split(run)) if flag == "-e")
    settings = loads("", environ={"HERMES_SERVER_LISTEN": listen, **given})
    assert settings.server.host == "0.0.0.0" and lines["EXPOSE"] == str(settings.server.port)
    assert f"`{listen}`" in README


@pytest.mark.parametrize(("answer", "code"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_works_without_anything_else(answer: int | None, code: int, router: Router) -> None:
    """The very command, against a server that is well, one that is not, and none."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    command = json.loads(instructions()["HEALTHCHECK"].partition("CMD ")[2])
    assert command[0] == "python3"
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_port
        thread = threading.Thread(target=server.handle_request)
        if answer:
            thread.start()
        else:
            server.server_close()
        ended = subprocess.run([sys.executable, *command[1:]], env={"HERMES_SERVER_LISTEN": f"0.0.0.0:{port}"}, stderr=subprocess.DEVNULL, timeout=30)
        if answer:
            thread.join()
    assert ended.returncode == code
    assert all(router.match("GET", path) for path in asked) and len(asked) == bool(answer)


def test_only_the_package_goes_into_the_image() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*" and [line for line in lines if line[0] == "!"] == ["!hermes"]


def test_every_promise_has_its_tests() -> None:
    """Each is named by its file, or by its name in it."""
    for promise, cell in rows("Promise", "Tested by"):
        named = [span for span in spans(cell) if span.startswith("tests/")]
        assert named, promise
        for span in named:
            path, _, name = span.partition("::")
            body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
            tests = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test")]
            assert name in tests if name else tests, span
