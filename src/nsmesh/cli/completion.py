"""``nsm completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    bash: eval "$(nsm completion bash)" in ~/.bashrc; zsh likewise in ~/.zshrc;
    fish: nsm completion fish > ~/.config/fish/completions/nsm.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "nsm", "_NSM_COMPLETE").source())
