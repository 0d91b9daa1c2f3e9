"""What is wrong with settings that are each right, where another setting, a file or the network has a say."""

import os

from hermes.config import addresses, trust
from hermes.config.reading import Reading


def refuse_own_address(reading: Reading, url: str, doors: dict[str, tuple[str, int] | str]) -> None:
    """`doors`: where Hermes listens, by the key that says so. No two of them may be one, and Ollama must be at none of them."""
    open_doors = {key: door for key, door in doors.items() if not isinstance(door, str)}
    for key, door in open_doors.items():
        if addresses.is_own(url, *door):
            # With the url left at its default it was the choice of where to listen that made the loop.
            given = reading.given["ollama.url"]
            if given.is_default:
                given = reading.given[key]
            section, name = key.split(".")
            reading.problems.append(
                given.problem(
                    f"{url} is Hermes's own address: it would call itself for ever; "
                    f"set [ollama] url, or OLLAMA_HOST, to where Ollama is, or [{section}] {name} to another port"
                )
            )
    front, admin = doors["server.listen"], open_doors.get("admin.listen")
    if admin and addresses.is_own(f"http://{addresses.join(*admin)}", *front):
        reading.problems.append(reading.given["admin.listen"].problem("that is [server] listen as well; wanted is another port"))


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
