"""`python -m hermes key NAME`: what it prints is what a configuration and a client need, and it is kept nowhere."""

import re
from pathlib import Path

import pytest

from hermes import cli
from hermes.config import loads
from hermes.frontend.principal import Keys


def made(capsys: pytest.CaptureFixture[str], name: str) -> tuple[str, str]:
    """The key and the TOML of a run."""
    assert cli.main(["key", name]) == cli.OK
    said = capsys.readouterr()
    assert said.err == ""
    _, key, table = re.fullmatch(r"(.*?)\n\n  (\S+)\n\n[^\n]+\n\n(.*)", said.out, re.DOTALL).groups()
    return key, table


@pytest.mark.parametrize("name", ["alice", "me@home.example", "10.0.0.1"])
def test_the_key_opens_the_table(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    key, table = made(capsys, name)
    settings = loads(table)
    assert settings.clients[0].name == name and key not in table
    assert Keys(settings.clients, False, False).identify({"authorization": f"Bearer {key}"}, "").name == name
    assert re.fullmatch(r"hk-[A-Za-z0-9_-]{43}", key), "256 bits"


def test_no_two_are_the_same_and_nothing_is_written(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len({made(capsys, "a")[0] for _ in range(20)}) == 20
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "a b", "ä", "a\nb", "x" * 65])
def test_a_name_that_cannot_be(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["key", name]) == cli.BAD_COMMAND
    said = capsys.readouterr()
    assert said.out == "" and "letters, digits" in said.err
