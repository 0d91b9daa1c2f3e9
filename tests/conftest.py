"""What holds for every test: the files it writes are its own, whatever the umask of whoever started it; Hermes refuses others."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)
