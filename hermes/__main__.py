"""python -m hermes. Also `python -I -S path/to/hermes`, where the interpreter is given the folder itself and no search path."""

import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.abspath(sys.path[0]))

if __name__ == "__main__":
    try:
        from hermes.cli import main
        sys.exit(main())
    except KeyboardInterrupt:           # while it was still being loaded
        sys.exit(0)
