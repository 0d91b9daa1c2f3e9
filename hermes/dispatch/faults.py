"""An OSError in a handler thread or a pull's own, and whose it is: the client's, the machine's, or ours."""

import errno
from collections.abc import Callable
from typing import TypeVar

from hermes.errors import HermesBusy

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
Made = TypeVar("Made")


def _shortage(error: BaseException) -> HermesBusy | None:
    """What is to be said if the error means that the machine has no descriptor, or no memory for one; it means no client."""
    return HermesBusy("no descriptor is left for this request") if getattr(error, "errno", None) in OUT_OF_DESCRIPTORS else None


def made(work: Callable[..., Made], *args: object) -> Made:
    """What an endpoint, a source or a pull makes. It says ClientGone of a client who has left, so an OSError from there is none of a
    client's connection, and must not end one without a word. Raises HermesBusy, and RuntimeError where the defect is ours."""
    try:
        return work(*args)
    except OSError as error:
        raise _shortage(error) or RuntimeError(f"{type(error).__name__} in Hermes itself") from error
