"""What may import what, what a worker loads, what never appears, and how long things may be: read off the source with `ast`."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "hermes").rglob("*.py"))

# A module may import what has its own rank or a lower one.
RANKS = {"hermes": 0, "hermes.errors": 1, "hermes.names": 1, "hermes.config": 1, "hermes.workers.messages": 1, "hermes.workers": 2,
         "hermes.dispatch": 3, "hermes.observe": 4, "hermes.frontend": 5, "hermes.application": 6, "hermes.cli": 7, "hermes.demo": 7,
         "hermes.archive": 7, "hermes.remote": 6, "hermes.deploy": 7, "hermes.__main__": 8}
STRANGERS = [("hermes.frontend.router", "hermes.dispatch.dispatcher"), ("hermes.frontend.router", "hermes.workers.supervisor"),
             ("hermes.dispatch.dispatcher", "hermes.workers.supervisor")]
# Who may ask for the time of day, and for what: whatever waits or measures asks the monotonic clock.
WALL_CLOCKS = {"hermes.frontend.connection": {"time.time"},                      # the Date header
               "hermes.observe.status": {"time.time", "datetime.fromtimestamp"},   # when the picture was taken
               "hermes.observe.logs": {"time.gmtime"},                             # a line's time
               "hermes.observe.usage": {"time.time"}, "hermes.observe.usagefile": {"time.time"}}       # whose day it is
WALL = {f"time.{name}" for name in ("time", "time_ns", "localtime", "gmtime", "strftime", "ctime", "asctime", "clock_gettime", "clock_gettime_ns", "CLOCK_REALTIME")}
WALL |= {f"{kind}.{name}" for kind in ("datetime", "date") for name in ("now", "utcnow", "today", "fromtimestamp", "utcfromtimestamp")}
WORKER = {"hermes", "hermes.errors", "hermes.workers",
          *("hermes.workers." + name for name in ("messages", "chunks", "endings", "watch", "reply", "connection", "ollama", "relay", "worker"))}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
TEXTS = {module_name(path): path.read_text(encoding="utf-8") for path in FILES}


def imports(module: str) -> set[str]:
    """Every module imported, inside functions too. `from package import module` names the module."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in TREES else node.module for name in names}
    return found


def rank(module: str) -> int:
    while module not in RANKS:
        module = module.rpartition(".")[0]
    return RANKS[module]


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.partition(".")[0] == "hermes"}


@pytest.mark.parametrize("module", TREES)
def test_only_the_standard_library_and_hermes(module: str) -> None:
    foreign = {name for name in imports(module) if name.partition(".")[0] not in sys.stdlib_module_names | {"hermes"}}
    assert not foreign
    assert all(name in TREES for name in ours(module)), "an import of something that is not there"


@pytest.mark.parametrize("module", [name for name in TREES if not name.startswith("hermes.simulator")])
def test_imports_go_one_way(module: str) -> None:
    simulated = {name for name in ours(module) if name.startswith("hermes.simulator")}
    assert not simulated or module in ("hermes.cli", "hermes.demo")
    assert rank(module) or module == "hermes", "a module without a rank: say in RANKS where it belongs"
    assert not {name for name in ours(module) - simulated if rank(name) > rank(module)}
    assert "hermes.application" not in ours(module) or module in ("hermes.cli", "hermes.demo")
    if module in ("hermes.workers.messages", "hermes.errors", "hermes.names"):
        assert not ours(module), "the lowest floor stands on nothing"


def test_simulator_stands_alone() -> None:
    for module in TREES:
        if module.startswith("hermes.simulator"):
            assert all(name.startswith("hermes.simulator") for name in ours(module)), module


@pytest.mark.parametrize(("one", "other"), STRANGERS)
def test_strangers(one: str, other: str) -> None:
    assert other not in ours(one) and one not in ours(other)


def test_no_cycle() -> None:
    state: dict[str, str] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert state.get(module) != "open", f"cycle: {' → '.join((*path, module))}"
        if module not in state:
            state[module] = "open"
            for name in sorted(ours(module)):
                visit(name, (*path, module))
            state[module] = "done"

    for module in TREES:
        visit(module, ())


def loaded(code: str) -> set[str]:
    """What a fresh interpreter without site-packages has loaded after `code`."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=os.sep)
    return set(run.stdout.split())


def test_what_a_worker_loads() -> None:
    modules = loaded("import hermes.workers.worker as worker; worker._lean_ollama()")
    assert {name for name in modules if name.partition(".")[0] == "hermes"} == WORKER
    assert not modules & {"ssl", "dataclasses", "typing"}, "a worker's memory"


def test_ssl_is_there_when_a_worker_asks_for_it() -> None:
    assert "ssl" in loaded("import hermes.workers.worker as worker; worker._lean_ollama(); import ssl; ssl.create_default_context()")


def test_the_parent_does_not_load_what_only_workers_need() -> None:
    assert not loaded("import hermes.application") & {"hermes.workers.ollama", "hermes.workers.relay", "urllib.request", "http.cookiejar"}


def test_sqlite_is_loaded_only_where_there_is_a_folder_for_it(tmp_path: Path) -> None:
    build = "import hermes.application as a; a.build(None, {'HERMES_SERVER_LISTEN': '127.0.0.1:0', 'HERMES_SERVER_STATE_DIR': %r})"
    assert not loaded(build % "") & {"sqlite3", "_sqlite3"}
    assert "_sqlite3" in loaded(build % str(tmp_path))


# urlopen obeys proxies, redirects and file:; readline takes a cut for an end, and a line for as long as it likes (design rules 8 and 11).
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "urlopen", "urlretrieve", "install_opener", "readline", "readlines", "system", "popen", "fork", "forkpty",
                "execv", "execve", "execvp", "execvpe", "spawnv", "spawnvp", "recv_into", "getoutput", "getstatusoutput", "create_subprocess_shell"}
NEVER_IMPORTED = {"ctypes", "_ctypes", "pickle", "_pickle", "marshal", "shelve", "cffi", "runpy", "code", "codeop", "pty", "subprocess", "xmlrpc", "telnetlib"}


def dangers(tree: ast.AST) -> list[str]:
    """What a source has of them, as "line: name": calls by whatever object, names that are only handed on, and imports. `re.compile` is harmless."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            names = [name for name in names if name.partition(".")[0] in NEVER_IMPORTED or name in NEVER_CALLED]
        elif isinstance(node, ast.Attribute):
            names = [node.attr] if node.attr in NEVER_CALLED and ast.unparse(node) != "re.compile" else []
        elif isinstance(node, ast.Name):
            names = [node.id] if node.id in NEVER_CALLED else []
        elif isinstance(node, ast.Call):
            # Connection.recv() takes no argument and unpickles; a socket's takes a size.
            names = [".recv()"] if isinstance(node.func, ast.Attribute) and node.func.attr in ("recv", "recv_bytes") and not node.args else []
            names += ["shell"] if any(keyword.arg == "shell" for keyword in node.keywords) else []
        else:
            continue
        found += [f"{node.lineno}: {name}" for name in names]
    return found


@pytest.mark.parametrize("module", TREES)
def test_what_never_appears(module: str) -> None:
    """E11 of the acceptance table (reliability.md §5)."""
    assert not dangers(TREES[module])
    for node in ast.walk(TREES[module]):
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if name.endswith(".send") and module.startswith(("hermes.workers", "hermes.dispatch")):
            assert node.args, f"{module}:{node.lineno} {name}"
        if name.endswith(("get_context", "set_start_method")):
            assert [ast.literal_eval(arg) for arg in node.args] == ["spawn"], node.lineno


@pytest.mark.parametrize("source", ["eval(x)", "exec(x)", "f = eval", "import pickle", "import ctypes.util", "from ctypes import CDLL", "from os import system", "os.system(x)", "run(x, shell=True)", "pipe.recv()",
                                    "self.pipe.recv_bytes()", "urllib.request.urlopen(x)", "from urllib.request import urlopen", "reply.readline()", "for x in iter(r.readline, b''): pass", "builtins.compile(x)",
                                    "def f():\n    import subprocess", "__import__('os')", "os.fork()"])
def test_what_is_dangerous_is_found(source: str) -> None:
    assert dangers(ast.parse(source))


@pytest.mark.parametrize("source", ["re.compile(x)", "sock.recv(4)", "json.loads(x)", "import urllib.request", "x.codeop"])
def test_what_is_harmless_is_not(source: str) -> None:
    assert not dangers(ast.parse(source))


@pytest.mark.parametrize("module", [name for name in TREES if not name.startswith("hermes.simulator")])
def test_the_time_of_day_is_for_texts_only(module: str) -> None:
    """A14. A clock that is put right ends nobody's patience."""
    nodes = list(ast.walk(TREES[module]))
    found = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)} & WALL
    assert found == WALL_CLOCKS.get(module, set())
    imported = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "time" for alias in node.names}
    assert not imported, "say time.monotonic, so that one can see which clock it is"


@pytest.mark.parametrize("module", TREES)
def test_sizes(module: str) -> None:
    """Keyword-only parameters do not count: nobody can mistake one for another."""
    assert len(TEXTS[module].splitlines()) <= 400
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{node.name}: {lines} lines"
            arguments = node.args
            named = [each.arg for each in (*arguments.posonlyargs, *arguments.args) if each.arg not in ("self", "cls")]
            assert len(named) <= 6, f"{node.name}: {named}"
