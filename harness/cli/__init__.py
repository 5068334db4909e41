"""The command line: one file per command, all errors in one sentence, exit codes that tell what failed."""

from harness.cli.main import main

__all__ = ["main"]
