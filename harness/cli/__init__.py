"""The command line: one file per command, all errors in one sentence, exit codes that tell what failed."""

import sys

try:
    from harness.cli.main import main
except KeyboardInterrupt:
    # Half a second goes by in imports: Ctrl-C in it shall not end in a traceback either.
    sys.stderr.write("\nharness: interrupted before anything began\n")
    raise SystemExit(130) from None

__all__ = ["main"]
