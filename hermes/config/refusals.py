"""What is wrong with settings that are each right, where another setting, a file or the network has a say."""

import os

from hermes.config import addresses, trust
from hermes.config.reading import Reading


def refuse_own_address(reading: Reading, url: str, listen: tuple[str, int]) -> None:
    if not addresses.is_own(url, *listen):
        return
    # With the url left at its default it was the choice of where to listen that made the loop.
    given = reading.given["ollama.url"]
    if given.is_default:
        given = reading.given["server.listen"]
    reading.problems.append(
        given.problem(
            f"{url} is Hermes's own address: it would call itself for ever; "
            "set [ollama] url, or OLLAMA_HOST, to where Ollama is, or [server] listen to another port"
        )
    )


def refuse_bad_folder(reading: Reading, folder: str) -> None:
    """Found here and not when the first line has to be written: then it would be too late to say so."""
    if not folder:
        return
    given = reading.given["server.state_dir"]
    if not os.path.isdir(folder):
        reading.problems.append(given.problem("there is no such folder; make it, or leave the key out"))
    elif not os.access(folder, os.W_OK | os.X_OK):
        reading.problems.append(given.problem("Hermes may not write there"))
    elif reason := trust.fault_of(folder):
        reading.problems.append(given.problem(reason))


def refuse_open_door(reading: Reading, host: str, decided: bool) -> None:
    """Whoever listens to the network says who may come in: nobody should have published an Ollama without noticing.
    `decided`: by clients, or by `open`."""
    if decided or addresses.is_loopback(host):
        return
    reading.problems.append(
        reading.given["server.listen"].problem(
            "whoever reaches this address could use Ollama; give clients keys with [clients.NAME] tables "
            "(`python -m hermes key NAME` makes one), let everybody in with [server] open = true or HERMES_SERVER_OPEN=true, "
            "or listen on 127.0.0.1"
        )
    )


def refuse_open_admin(reading: Reading, listen: tuple[str, int] | str, has_clients: bool) -> None:
    """`open` does not help here: it lets everybody use Ollama, not manage it."""
    if isinstance(listen, str) or has_clients or addresses.is_loopback(listen[0]):
        return
    reading.problems.append(
        reading.given["admin.listen"].problem(
            "whoever reaches this address could manage models; give clients keys with [clients.NAME] tables, "
            "or use 127.0.0.1 or a Unix socket"
        )
    )


def refuse_bad_certificate(reading: Reading, cert: str, key: str) -> None:
    """It is tried out: better now than when the first client comes."""
    if not (cert and key):
        for setting, path, other in (("server.tls_cert", cert, "tls_key"), ("server.tls_key", key, "tls_cert")):
            if path:
                reading.problems.append(reading.given[setting].problem(f"{other} is missing: a certificate and its key go together"))
        return
    from hermes.config.certificates import CertificateUnusable, server_context

    try:
        server_context(cert, key)
    except CertificateUnusable as error:
        reading.problems.append(reading.given[f"server.{error.key}"].problem(str(error)))
