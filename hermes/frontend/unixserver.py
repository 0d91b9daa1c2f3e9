"""The admin listener on a Unix socket: the file system says who may open it, so nobody is asked for a key."""

import errno
import os
import socket
import stat

from hermes.frontend.connection import ClientConnection
from hermes.frontend.house import House
from hermes.frontend.server import Server

PRIVATE = 0o177             # the umask under which a socket is made: its owner's alone


class UnixServer(Server):
    """A Server at a path. The file goes with it at the stop; that of a Hermes which was killed is replaced by the next."""

    def __init__(self, path: str, house: House, max_connections: int):
        """In the main thread, before there are others: the umask is the whole process's. Raises OSError."""
        self.path = path
        self._file: tuple[int, int] | None = None
        super().__init__((path, 0), house, max_connections)

    @staticmethod
    def family(host: str) -> int:
        return socket.AF_UNIX

    def server_bind(self) -> None:
        make_way(self.path)
        before = os.umask(PRIVATE)              # and not a chmod afterwards: until then it would be everybody's
        try:
            self.socket.bind(self.path)
        except OSError as error:
            raise OSError(error.errno, f"{self.path}: {error.strerror}") from None
        finally:
            os.umask(before)
        self._file = _identity(self.path)
        self.server_address = self.path
        self.server_name, self.server_port = self.path, 0

    @property
    def on_loopback(self) -> bool:
        return True

    @property
    def url(self) -> str:
        return f"unix:{self.path}"

    def server_close(self) -> None:
        try:
            if _identity(self.path) == self._file:      # somebody may have put another in its place
                os.unlink(self.path)
        except OSError:
            pass
        super().server_close()

    def connection(self, request: socket.socket, client_address) -> ClientConnection:
        return ClientConnection(request, self.house)


def make_way(path: str) -> None:
    """Take the socket of a dead process away. Raises OSError where something else is, or somebody listens.

    Two that start at the same time do not meet here: each has its other address by then, and one of them has not got it.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, f"{path} is there, and is no socket")
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)                # with a full queue connecting would wait
        failure = probe.connect_ex(path)
    if failure == errno.ECONNREFUSED:
        os.unlink(path)
    elif failure in (0, errno.EAGAIN):
        raise OSError(errno.EADDRINUSE, f"somebody listens on {path}")
    elif failure != errno.ENOENT:
        raise OSError(failure, f"{path}: {os.strerror(failure)}")


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
