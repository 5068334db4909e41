"""`harness completion`: the shell's part of completion, to be loaded by its start-up file."""

from __future__ import annotations

import click

from harness.completion.answer import script_for

INSTALL = {
    "bash": 'eval "$(harness completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(harness completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "harness completion fish > ~/.config/fish/completions/harness.fish   # once",
}
"""The line that installs it."""


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("shell", type=click.Choice(list(INSTALL)))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options, boards, tags, chips and profiles.

    \b
    bash:  eval "$(harness completion bash)"    in ~/.bashrc
    zsh:   eval "$(harness completion zsh)"     in ~/.zshrc, after compinit
    fish:  harness completion fish > ~/.config/fish/completions/harness.fish
    """
    click.echo(f"# Completion of harness; install with: {INSTALL[shell]}")
    click.echo(script_for(shell))
