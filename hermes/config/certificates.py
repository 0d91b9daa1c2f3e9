"""The certificate that clients are shown: two PEM files → what `ssl` makes of them, or what is wrong with which of them.

Imported where there is a certificate only: without one Hermes needs no OpenSSL.
"""

import os
import ssl
import stat

from hermes.config import trust

LOOSE = stat.S_IWGRP | stat.S_IWOTH | stat.S_IROTH  # a group may read: it is how one certificate is shared by several services


class CertificateUnusable(OSError):
    """`key` is the setting that names the file at fault; the text says what is wrong with it."""

    def __init__(self, key: str, text: str):
        super().__init__(text)
        self.key = key


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """For connections from clients: TLS 1.2 and newer, HTTP/1.1 and nothing else. Raises CertificateUnusable."""
    for setting, path in (("tls_cert", cert), ("tls_key", key)):
        try:
            with open(path, "rb") as file:
                mode, reason = os.fstat(file.fileno()).st_mode, trust.fault_of(path, file.fileno())
        except OSError as error:
            raise CertificateUnusable(setting, f"cannot read the file: {error.strerror or error}") from None
        if reason:
            raise CertificateUnusable(setting, reason)
    if mode & LOOSE:
        raise CertificateUnusable("tls_key", f"others may read the key, or change it (mode {stat.S_IMODE(mode):04o}); `chmod 600` it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # it costs the server more than who asks for it
    # A client that just leaves has left, and HTTP's own framing says whether something is missing. OpenSSL 3 would answer with an alert, also when
    # it was Hermes that stopped listening, and after that it could not say close_notify any more.
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.set_alpn_protocols(["http/1.1"])
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)  # OpenSSL's own words do not tell which file it means
    except (ssl.SSLError, ValueError):
        raise CertificateUnusable("tls_cert", "there is no certificate in it; wanted is PEM, the server's own first") from None
    try:
        context.load_cert_chain(cert, key, _no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateUnusable("tls_key", "it is not the key of the certificate in tls_cert") from None
        said = f" (OpenSSL: {error.reason})" if error.reason else ""
        raise CertificateUnusable("tls_key", f"there is no usable key in it; wanted is PEM, not encrypted{said}") from None
    except (OSError, ValueError) as error:
        raise CertificateUnusable("tls_key", f"{error}; wanted is PEM, not encrypted") from None
    return context


def _no_password() -> str:
    """Without this OpenSSL would ask the terminal, and wait."""
    raise ValueError("the key is encrypted")
