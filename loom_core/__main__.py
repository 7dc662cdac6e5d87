"""`python -m loom_core` is `loom`."""

from loom_core.cli import main

if __name__ == "__main__":
    main()
