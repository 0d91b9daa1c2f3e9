"""The head of Ollama's answer and the reading of its body.

The head is split by hand: http.client's own parser goes through email.parser, which costs more than the rest of a small call.
The body is read as raw bytes; hermes.workers.chunks knows where a chunk-coded one ends.
"""

import re

from hermes.errors import UpstreamBroken

_HEAD_MAX = 64 * 1024
_FIELDS_MAX = 100
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n]*)?\Z")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
READ = 64 * 1024


class Reply:
    """One answer. `last`: the connection cannot carry another request after it. `sock` is where its body comes from.

    `framing` is "chunked", "length" or "close" (RFC 9112 §6.3). Raises UpstreamBroken on a malformed head, EOFError when the
    connection ended before the first byte.
    """

    def __init__(self, sock, method: str):
        self.sock = sock
        self._method = method
        self.fresh = True               # nothing has come yet
        self.status = 0
        self.headers: dict[str, str] = {}
        self.framing = "length"
        self.length = 0
        self.bodyless = False           # HEAD, 204, 304: the framing is that of a body that does not come
        self.last = True
        self.first = b""                # what came behind the head in the same read

    def begin(self, early: bytes | None = None) -> None:
        """Read the head. `early`: what was read already, b"" = the end of the connection."""
        buffer = b""
        while True:
            end = buffer.find(b"\r\n\r\n")
            if max(end, len(buffer) if end < 0 else 0) > _HEAD_MAX:
                raise UpstreamBroken("the head of Ollama's answer is too large")
            if end < 0:
                data, early = self.sock.recv(READ) if early is None else early, None
                if not data:
                    if self.fresh:
                        raise EOFError
                    raise UpstreamBroken("Ollama closed the connection inside the head of its answer")
                self.fresh = False
                buffer += data
                continue
            self._parse(buffer[:end])
            buffer = buffer[end + 4:]
            if self.status >= 200:
                break
            if self.status == 101:
                raise UpstreamBroken("Ollama switched protocols")
        self.first = buffer

    def _parse(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        status = _STATUS.match(lines[0])
        if not status or len(lines) > _FIELDS_MAX:
            raise UpstreamBroken("Ollama's answer does not begin like HTTP")
        self.status = int(status[2])
        headers: dict[str, str] = {}
        for line in lines[1:]:
            raw_name, colon, value = line.partition(b":")
            name = raw_name.decode("latin-1").lower()
            if not colon or not _NAME.match(raw_name) or _CONTROL.search(value) or name in headers and name in ("content-length", "transfer-encoding"):
                raise UpstreamBroken("Ollama's answer has a malformed header")
            headers[name] = value.strip(b" \t").decode("latin-1")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise UpstreamBroken("Ollama's answer is compressed, and nobody has asked for that")
        self.headers = headers
        self.last = status[1] == b"0" or "close" in headers.get("connection", "").lower()
        self._decide_framing()

    def _decide_framing(self) -> None:
        coding, length = self.headers.get("transfer-encoding"), self.headers.get("content-length")
        if coding is not None:
            if length is not None or coding.lower() != "chunked":
                raise UpstreamBroken("Ollama's answer is framed in two ways, or in an unknown one")
            self.framing = "chunked"
        elif length is not None:
            if not length.isascii() or not length.isdigit() or len(length) > 15:
                raise UpstreamBroken("Ollama's answer has a malformed length")
            self.framing, self.length = "length", int(length)
        elif self._method != "HEAD" and self.status not in (204, 304):
            self.framing, self.last = "close", True
        self.bodyless = self._method == "HEAD" or self.status in (204, 304)

    def read(self) -> bytes:
        """What one read returns; b"" at the end of the connection."""
        if self.first:
            data, self.first = self.first, b""
            return data
        return self.sock.recv(READ)
