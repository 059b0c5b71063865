"""The command ``aliasing``, and ``python -m aliasing``, which is the same."""

import sys


def main() -> int:
    """Run the command line; the keyboard ends it with one line also while it is still being imported."""
    try:
        from . import cli

        return cli.main()
    except KeyboardInterrupt:
        print("aliasing: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
