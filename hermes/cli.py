"""Subcommands and exit codes (conventions.md §2.1, §2.2)."""

import argparse
import difflib
import os
import signal
import sys

from hermes import __version__

OK, FAILED, BAD_COMMAND, CANNOT_START, BAD_CONFIG = 0, 1, 2, 3, 78     # 78 is EX_CONFIG of sysexits.h
COMMANDS = ("serve", "check", "status", "queue", "cancel", "demo", "simulator", "key", "version")
NEW_KEY = """The key, shown this once and kept nowhere:

  {key}

For hermes.toml:

{table}
key_sha256 = "{hash}\""""


def main(arguments: list[str] | None = None) -> int:
    _fill_standard_descriptors()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version"):
        arguments.insert(0, "serve")
    if arguments[0] in ("--version",):
        arguments[0] = "version"
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return OK
    except BrokenPipeError:
        return FAILED


def _fill_standard_descriptors() -> None:
    """Whoever starts us may have closed 0, 1 or 2. A socket would get such a number, and in it what is meant for a terminal; so do the workers'."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")       # print() to None goes to stdout


class Parser(argparse.ArgumentParser):
    """Suggests the nearest command; argparse itself does so from 3.14 on."""

    def error(self, message: str) -> None:
        word = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        near = difflib.get_close_matches(word, COMMANDS, 1)
        super().error(message + (f" (did you mean '{near[0]}'?)" if "invalid choice" in message and near else ""))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m hermes", description="A sidecar gateway for Ollama: bounded queues, worker pools, honest streams.",
                    allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, run, text in (("serve", serve, "run the gateway (the default)"), ("check", check, "say everything that is wrong with a configuration"),
                            ("status", remote, "show what a running Hermes does"), ("queue", remote, "show who waits and who runs"),
                            ("cancel", remote, "end a request"),
                            ("demo", demo, "run the gateway in front of a built-in stand-in Ollama"),
                            ("simulator", simulator, "run the stand-in Ollama alone"), ("key", key, "make a key for a client, and say what to write into hermes.toml"),
                            ("version", version, "print the version")):
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        if name in ("serve", "check"):
            command.add_argument("--config", metavar="FILE", help="the configuration (default: HERMES_CONFIG, ./hermes.toml, …)")
        if name in ("status", "queue", "cancel"):
            command.add_argument("--url", metavar="URL", help="where Hermes is, or unix:/path (default: where the configuration says that it listens)")
            command.add_argument("--ca", metavar="FILE", default="", help="the certificates to trust, for https (default: those that this machine trusts)")
        if name == "cancel":
            command.add_argument("id", metavar="ID", help="the request's id, as `queue` shows it")
        if name == "key":
            command.add_argument("name", metavar="NAME", help="the client's name")
        if name == "simulator":
            command.add_argument("--host", default="127.0.0.1")
            command.add_argument("--port", type=int, default=11434)
            command.add_argument("--load-time", type=float, default=1.0, metavar="SECONDS")
            command.add_argument("--token-interval", type=float, default=0.02, metavar="SECONDS")
    return parser


def serve(options: argparse.Namespace) -> int:
    """Until `run` hears it, Ctrl-C ends the process as it ends any other: while modules are loaded, a KeyboardInterrupt is lost in a callback of Python's own
    now and then, and who has pressed it would wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from hermes import application
    from hermes.config import ConfigError
    from hermes.observe import logs, notifier
    from hermes.observe.usage import UsageUnusable
    for secret in ("HERMES_KEY", "OLLAMA_API_KEY"):
        os.environ.pop(secret, None)            # for clients, such as `status`: no worker is to inherit them
    try:
        app = application.build(options.config, os.environ, notifier.Notifier(notifier.take(os.environ), os.getpid()))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIG
    except OSError as error:
        print(f"hermes: cannot listen: {error.strerror or error}", file=sys.stderr)
        return CANNOT_START
    except UsageUnusable as error:
        print(f"hermes: {error}", file=sys.stderr)
        return CANNOT_START
    handler = logs.start(app.config.log.level, app.config.log.format)
    try:
        return OK if app.run() else CANNOT_START
    except Exception:
        logs.last_words()
        return FAILED
    finally:
        logs.stop(handler)


def check(options: argparse.Namespace) -> int:
    from hermes import config
    path = options.config or config.find(os.environ)
    try:
        settings = config.load(path, os.environ)
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIG
    print(f"{path or 'built-in configuration'}: OK, {len(settings.models)} models, {len(settings.clients)} clients, listen {settings.server.listen}, upstream {settings.ollama.url}")
    return OK


def remote(options: argparse.Namespace) -> int:
    from hermes import remote as client
    from hermes.config import ConfigError
    try:
        for line in client.run(options.command, client.base_url(options.url, os.environ), getattr(options, "id", ""), ca=options.ca):
            print(line)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIG
    except client.Refused as error:
        print(f"hermes: {error}", file=sys.stderr)
        return FAILED
    return OK


def demo(options: argparse.Namespace) -> int:
    from hermes.config import ConfigError
    from hermes.demo import run
    try:
        return run()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIG


def simulator(options: argparse.Namespace) -> int:
    from hermes.simulator import Simulator
    # Before the line that says it listens: whoever reads that may send a signal at once.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stand_in = Simulator(host=options.host, port=options.port, load_time=options.load_time, token_interval=options.token_interval, remember=1000)
    try:
        stand_in.start()
    except OSError as error:
        print(f"hermes: cannot listen: {error.strerror or error}", file=sys.stderr)
        return CANNOT_START
    try:
        print(f"listening on {stand_in.url} (a stand-in Ollama)", file=sys.stderr, flush=True)
        while True:
            signal.pause()
    finally:
        stand_in.stop()
    return OK


def key(options: argparse.Namespace) -> int:
    """The key goes to stdout and nowhere else; 256 random bits need no slow hash."""
    import hashlib
    import secrets

    from hermes import config
    if not config.is_client_name(options.name):
        print("hermes: a client's name is made of letters, digits and any of _ . @ + -, at most 64 of them", file=sys.stderr)
        return BAD_COMMAND
    made = config.KEY_PREFIX + secrets.token_urlsafe(32)
    print(NEW_KEY.format(key=made, table=config.heading(("clients", options.name)), hash=hashlib.sha256(made.encode("ascii")).hexdigest()))
    return OK


def version(options: argparse.Namespace) -> int:
    print(f"hermes {__version__} (Python {sys.version.split()[0]})")
    return OK
