"""python -m tests.chaos [--seed N] [--seconds S]: one storm. Exit code 1: something did not hold."""

import argparse
import random
import sys

from tests.chaos.storm import Storm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__, allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=None, help="of the script; a random one if left out")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the storm lasts")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    title = f"seed={seed} seconds={options.seconds:g}: the same steps; threads and processes take their own time with them"
    print(title, flush=True)
    book = Storm(seed, options.seconds).run()
    print("\n".join(f"{count:7d}  {name}" for name, count in sorted(book.counts.items())))
    if book.complaints:
        print("\nThe steps before the first complaint:", *book.steps, "\nWhat did not hold:", *book.complaints[:40], sep="\n")
        print(f"{len(book.complaints)} complaints")
    print(title, flush=True)
    return 1 if book.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
