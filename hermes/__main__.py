"""python -m hermes. Also `python -I -S path/to/hermes`, where the interpreter is given the folder itself and no search path."""

import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.abspath(sys.path[0]))

if __name__ == "__main__":
    try:
        import signal
        signal.signal(signal.SIGINT, signal.SIG_DFL)    # until somebody can hear it: a KeyboardInterrupt is lost in a callback of Python's own
    except KeyboardInterrupt:
        sys.exit(0)
    from hermes.cli import main
    sys.exit(main())
