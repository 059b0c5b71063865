"""``python -m aliasing`` is the same as ``aliasing``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
