"""What is wrong with settings that are each right, where files or the network have a say: the admin listener and the certificate."""

from hermes.config import addresses
from hermes.config.reading import Reading


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
