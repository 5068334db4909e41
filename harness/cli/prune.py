"""`harness prune`: deletes old artefacts of runs."""

from __future__ import annotations

import json

import click

from harness.cli.options import json_option
from harness.history.amounts import age_s, size_bytes, size_text
from harness.history.pruning import Limits, prune
from harness.home import Home


@click.command(
    "prune",
    epilog="""\b
Examples:
  harness prune --dry-run
  harness prune --older-than 30d --larger-than 5GB
""",
)
@click.option("--older-than", metavar="AGE", help="Delete what is older: 30d, 12h, 8w, … (default: 90d).")
@click.option(
    "--larger-than",
    metavar="SIZE",
    help="Delete the oldest until all together are smaller: 500MB, 5GB, … (default: 20GB).",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@json_option
def prune_command(older_than: str | None, larger_than: str | None, dry_run: bool, as_json: bool) -> None:
    """Delete folders of old runs under HARNESS_HOME, and old printed plans.

    Every run does so at its end, with the defaults or what HARNESS_KEEP_AGE and HARNESS_KEEP_SIZE say (`all` keeps
    everything). Runs of `harness qualify`, and folders with a file named `keep` in them, stay. The history keeps what
    a run came to.
    """
    limits = Limits.of_environment()
    limits = Limits(
        limits.age_s if older_than is None else age_s(older_than),
        limits.size if larger_than is None else size_bytes(larger_than),
    )
    done = prune(Home.of_user(), limits, dry_run=dry_run)
    if as_json:
        deleted = [{"path": str(each.path), "bytes": each.size, "why": each.why} for each in done.deleted]
        told = {"format": 1, "dry_run": dry_run, "deleted": deleted, "kept": done.kept, "bytes": done.size}
        click.echo(json.dumps(told, indent=1))
        return
    for each in done.deleted:
        click.echo(
            f"{'would delete' if dry_run else 'deleted'} {each.path} ({size_text(each.size)}): {each.why}"
        )
    for sentence in done.kept:
        click.echo(sentence)
    freed = size_text(done.size)
    click.echo(f"{freed} would be freed" if dry_run else f"{len(done.deleted)} deleted, {freed} freed")
