"""`python -m fwtrain`, and the script `fwtrain`."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point. Ctrl-C while modules are imported is one sentence too; afterwards `run_app` takes care of it."""
    try:
        from fwtrain.cli import main as run

        run()
    except KeyboardInterrupt:
        from fwdata.errors import EXIT_INTERRUPTED, INTERRUPTED

        print(f"error: {INTERRUPTED}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
