"""``nsm completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(
    epilog="\b\n"
    'bash, in ~/.bashrc:  eval "$(nsm completion bash)"\n'
    'zsh, in ~/.zshrc:    eval "$(nsm completion zsh)"\n'
    "fish:                nsm completion fish > ~/.config/fish/completions/nsm.fish\n",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "nsm", "_NSM_COMPLETE").source())
