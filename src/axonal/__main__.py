"""The program `axonal`, and `python -m axonal`."""

import sys


def main() -> None:
    """Run the command line; an interruption ends it without a traceback, however early."""
    try:
        from .cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
