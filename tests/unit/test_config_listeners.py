"""What hermes.toml may say of TLS and of the admin listener: values, files, and the message for everything else."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from hermes import cli
from hermes.config import ConfigError, load, loads
from hermes.config.addresses import admin_address
from hermes.config.certificates import CertificateUnusable, server_context

FOLDER = Path(__file__).parents[1] / "process" / "tls"
CLIENT = f'[clients.c]\nkey_sha256 = "{"ab" * 32}"\n'


def problem(text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(text, environ=environ or {})
    [only] = caught.value.problems
    return str(only)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in FOLDER.iterdir():
        shutil.copyfile(file, tmp_path / file.name)
        (tmp_path / file.name).chmod(0o600)
    return tmp_path


# -- TLS


def test_without_them_there_is_no_tls() -> None:
    server = loads("").server
    assert (server.tls_cert, server.tls_key) == ("", "")


def test_paths_begin_at_the_configurations_folder(folder: Path) -> None:
    file = folder / "hermes.toml"
    file.write_text('[server]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n', encoding="utf-8")
    server = load(str(file)).server
    assert (server.tls_cert, server.tls_key) == (str(folder / "cert.pem"), str(folder / "key.pem"))
    server = load(str(file), {"HERMES_SERVER_TLS_CERT": str(folder / "renewed.pem"), "HERMES_SERVER_TLS_KEY": "renewed-key.pem"}).server
    assert (server.tls_cert, server.tls_key) == (str(folder / "renewed.pem"), str(folder / "renewed-key.pem"))


@pytest.mark.parametrize(("there", "missing"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
def test_both_or_neither(there: str, missing: str) -> None:
    assert problem(f'[server]\n{there} = "x.pem"') == f"hermes.toml:2: '{there}' in [server] is \"x.pem\": {missing} is missing: a certificate and its key go together"
    assert missing in problem("", {f"HERMES_SERVER_{there.upper()}": "x.pem"})


@pytest.mark.parametrize(("cert", "key", "at", "text"), [
    ("nowhere", "key.pem", "tls_cert", "cannot read the file: No such file or directory"),
    ("cert.pem", "nowhere", "tls_key", "cannot read the file: No such file or directory"),
    (".", "key.pem", "tls_cert", "cannot read the file: Is a directory"),
    ("key.pem", "key.pem", "tls_cert", "there is no certificate in it"),
    ("empty", "key.pem", "tls_cert", "there is no certificate in it"),
    ("rubbish", "key.pem", "tls_cert", "there is no certificate in it"),
    ("cert.pem", "cert.pem", "tls_key", "there is no usable key in it"),
    ("cert.pem", "empty", "tls_key", "there is no usable key in it"),
    ("cert.pem", "rubbish", "tls_key", "there is no usable key in it"),
    ("cert.pem", "renewed-key.pem", "tls_key", "it is not the key of the certificate in tls_cert")])
def test_what_is_wrong_with_the_files(folder: Path, cert: str, key: str, at: str, text: str) -> None:
    for name, content in (("empty", b""), ("rubbish", bytes(range(256)))):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    said = problem(f'[server]\ntls_cert = "{folder / cert}"\ntls_key = "{folder / key}"')
    assert said.startswith(f"hermes.toml:{2 if at == 'tls_cert' else 3}: '{at}' in [server] is ") and text in said


@pytest.mark.parametrize(("mode", "good"), [(0o400, True), (0o600, True), (0o640, True), (0o440, True), (0o700, True),
                                            (0o604, False), (0o602, False), (0o620, False), (0o644, False), (0o660, False), (0o666, False)])
def test_who_may_have_the_key(folder: Path, mode: int, good: bool) -> None:
    (folder / "key.pem").chmod(mode)
    if good:
        server_context(str(folder / "cert.pem"), str(folder / "key.pem"))
    else:
        with pytest.raises(CertificateUnusable, match=f"others may (read the key|write).*mode {mode:04o}") as caught:
            server_context(str(folder / "cert.pem"), str(folder / "key.pem"))
        assert caught.value.key == "tls_key"


def test_what_others_can_write_is_no_certificate(folder: Path) -> None:
    (folder / "cert.pem").chmod(0o646)
    with pytest.raises(CertificateUnusable, match="others may write to it") as caught:
        server_context(str(folder / "cert.pem"), str(folder / "key.pem"))
    assert caught.value.key == "tls_cert"
    (folder / "cert.pem").chmod(0o644)
    folder.chmod(0o777)
    with pytest.raises(CertificateUnusable, match="everybody may replace it"):
        server_context(str(folder / "cert.pem"), str(folder / "key.pem"))
    folder.chmod(0o700)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_nobody_is_asked_for_a_password(folder: Path) -> None:
    subprocess.run(["openssl", "pkcs8", "-topk8", "-in", folder / "key.pem", "-out", folder / "secret.pem", "-passout", "pass:x"], check=True, timeout=30)
    (folder / "secret.pem").chmod(0o600)
    with pytest.raises(CertificateUnusable, match="the key is encrypted") as caught:
        server_context(str(folder / "cert.pem"), str(folder / "secret.pem"))
    assert caught.value.key == "tls_key"


def test_what_is_spoken(folder: Path) -> None:
    context = server_context(str(folder / "cert.pem"), str(folder / "key.pem"))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2 and context.verify_mode == ssl.CERT_NONE
    assert context.options & ssl.OP_NO_RENEGOTIATION and context.options & ssl.OP_NO_COMPRESSION


@pytest.mark.parametrize("command", ["check", "serve"])
def test_check_and_start_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    file = tmp_path / "hermes.toml"
    file.write_text('[server]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n', encoding="utf-8")
    assert cli.main([command, "--config", str(file)]) == cli.BAD_CONFIG
    assert capsys.readouterr().err == f"{file}:2: 'tls_cert' in [server] is \"cert.pem\": cannot read the file: No such file or directory\n"


# -- the admin listener


@pytest.mark.parametrize(("text", "listen", "path"), [
    ("", "", ""), ("127.0.0.1:11436", ("127.0.0.1", 11436), ""), ("[::1]:0", ("::1", 0), ""), ("localhost:1", ("localhost", 1), ""),
    ("unix:/run/a.sock", "/run/a.sock", "/run/a.sock"), ("unix:/" + "a" * 106, "/" + "a" * 106, "/" + "a" * 106), ("unix:/a b:c", "/a b:c", "/a b:c")])
def test_where_managing_is_done(text: str, listen: object, path: str) -> None:
    admin = loads(f'[admin]\nlisten = "{text}"').admin
    assert (admin.listen, admin.path) == (listen, path) and admin_address(text) == listen
    assert loads("", environ={"HERMES_ADMIN_LISTEN": text}).admin == admin


@pytest.mark.parametrize("text", ["unix:", "unix:a.sock", "unix:~/a", "unix:/run/", "unix:/", "unix:/a\\u0000b", "unix:/a\\nb", "unix:/" + "a" * 107, "unix:/" + "é" * 54])
def test_paths_that_are_none(text: str) -> None:
    assert 'wanted after "unix:" is the whole path of a socket, at most 107 bytes' in problem(f'[admin]\nlisten = "{text}"')


@pytest.mark.parametrize("literal", ['"127.0.0.1"', '"x"', '"http://127.0.0.1:1"', "11436", "true", '"UNIX:/a"'])
def test_addresses_that_are_none(literal: str) -> None:
    assert problem(f"[admin]\nlisten = {literal}").startswith("hermes.toml:2: 'listen' in [admin] is ")


@pytest.mark.parametrize("listen", [":1", "0.0.0.0:1", "[::]:1", "10.0.0.5:1", "example.com:1"])
def test_the_network_takes_clients_and_open_is_no_leave(listen: str) -> None:
    text = f'[server]\nopen = true\nmanage = true\n[admin]\nlisten = "{listen}"\n'
    assert problem(text).startswith("hermes.toml:5: 'listen' in [admin] is ") and "whoever reaches this address could manage models" in problem(text)
    assert loads(text + CLIENT).admin.listen
    for good in ("127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/a.sock"):
        assert loads(text.replace(listen, good)).admin.listen


@pytest.mark.parametrize(("server", "admin"), [("127.0.0.1:4000", "127.0.0.1:4000"), (":4000", "127.0.0.1:4000"), ("127.0.0.1:4000", "localhost:4000"), ("[::1]:4000", "127.0.0.1:4000")])
def test_two_listeners_are_not_one(server: str, admin: str) -> None:
    text = f'[server]\nlisten = "{server}"\nopen = true\n[admin]\nlisten = "{admin}"\n'
    assert problem(text).startswith("hermes.toml:5: 'listen' in [admin] is ") and "wanted is another port" in problem(text)
    assert loads(text.replace(f'[admin]\nlisten = "{admin}"', '[admin]\nlisten = "127.0.0.1:4001"')) and loads(text.replace(":4000", ":0"))


def test_ollama_is_not_where_hermes_is_managed() -> None:
    text = '[admin]\nlisten = "127.0.0.1:4000"\n[ollama]\nurl = "http://localhost:4000"\n'
    assert "http://localhost:4000 is Hermes's own address" in problem(text) and "[admin] listen to another port" in problem(text)
    assert loads(text.replace("localhost:4000", "localhost:4001"))
    assert problem('[admin]\nlisten = "127.0.0.1:11434"\n').startswith("hermes.toml:2: 'listen' in [admin] is "), "Ollama's own port"
