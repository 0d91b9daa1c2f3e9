"""python -m hermes.archive FILE: the package as one executable file, the same bytes from the same sources.

The standard zipapp module stamps the present time and packs __pycache__, so two runs differ (conventions.md §2.14); here names are sorted,
times and permissions fixed.
"""

import io
import os
import sys
import zipfile
from importlib import resources

MAIN = """import sys

if __name__ == "__main__":
    try:
        import signal
        signal.signal(signal.SIGINT, signal.SIG_DFL)    # as in hermes/__main__.py
    except KeyboardInterrupt:
        sys.exit(0)
    from hermes.cli import main
    sys.exit(main())
"""
STAMP = (1980, 1, 1, 0, 0, 0)       # the earliest a zip file knows


def build() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted([("__main__.py", MAIN.encode()), *_sources(resources.files("hermes"), "hermes")]):
            entry = zipfile.ZipInfo(name, STAMP)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return b"#!/usr/bin/env python3\n" + buffer.getvalue()


def _sources(folder, path: str):
    for item in folder.iterdir():
        inner = f"{path}/{item.name}"
        if item.is_dir():
            if item.name != "__pycache__":
                yield from _sources(item, inner)
        elif item.name.endswith(".py"):
            yield inner, item.read_bytes()


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m hermes.archive FILE", file=sys.stderr)
        return 2
    with open(arguments[0], "wb") as file:
        file.write(build())
    os.chmod(arguments[0], 0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
