"""`harness serve`: the rack live in a browser."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import boards_option
from harness.home import Home
from harness.interruption import Interrupted
from harness.ota.listening import is_loopback
from harness.serve.access import PARAMETER, TOKEN_FILE, read_token
from harness.serve.server import DEFAULT_PORT, access_of, bind, serve, url_of


@click.command(
    "serve",
    epilog="""\b
Examples:
  harness serve                        for this machine alone
  harness serve --host 0.0.0.0         for the lab's network, with a token
""",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on."
)
@click.option(
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port; 0: a free one.",
)
@click.option(
    "--name", "names", multiple=True, metavar="NAME", help="Also answer to this host name (a proxy's, say)."
)
@click.option("--new-token", is_flag=True, help="Make another token; whoever has the old one is out.")
@boards_option
def serve_command(
    host: str, port: int, names: tuple[str, ...], new_token: bool, boards_file: Path | None
) -> None:
    """Show boards, leases, health, what each does now, logs as they grow, last verdicts and the history in a browser.

    It only reads: it opens no port of a board, takes no lease, and answers to nothing but GET. Reachable from other
    machines it demands a token.
    """
    home = Home.of_user()
    token, made = (None, False) if is_loopback(host) and not new_token else read_token(home, new=new_token)
    with bind(host, port) as sock:
        port = sock.getsockname()[1]
        url = url_of(host, port)

        def ready() -> None:
            click.echo(f"The rack is at {url} (Ctrl-C ends this)")
            if token is not None and made:
                click.echo(
                    f"Open it once with its token, which is not shown again: {url}?{PARAMETER}={token}"
                )
            elif token is not None:
                click.echo(f"Its token is in {home.root / TOKEN_FILE}: open {url}?{PARAMETER}=TOKEN once")

        try:
            serve(sock, home, access_of(port, names, token), boards_file=boards_file, ready=ready)
        except Interrupted:
            click.echo("stopped")
