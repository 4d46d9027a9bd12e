"""Arguments with a set of values, and commands with subcommands, that suggest what was meant.

Lives here: ``Choice`` (replaces ``click.Choice``) and ``CommandGroup`` (``click.Group``).
Rules: the messages are the same with every click from 8.1 on, which suggests options, and from 8.4
on the commands of some groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from paraglider.cli.errors import EXIT_MISTAKE
from paraglider.config.wording import nearest

if TYPE_CHECKING:
    TextChoice = click.Choice[str]
else:
    TextChoice = click.Choice  # has no parameter before click 8.4


class Choice(TextChoice):
    """One of some words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See ``click.Choice``; the error has the nearest word."""
        if value not in self.choices:
            words = ", ".join(repr(word) for word in self.choices)
            hint = meant(str(value), self.choices)
            self.fail(f"{value!r} is not one of {words}.{hint}", param, ctx)
        return str(value)


class CommandGroup(click.Group):
    """A group of commands; alone it prints its help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See ``click.Group``; without a command, the help goes to stderr: nothing was done."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True, color=ctx.color)
            ctx.exit(EXIT_MISTAKE)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See ``click.Group``; the error has the nearest command."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            if name.startswith("-"):
                self.parse_args(ctx, args)  # the message about an option that is not known
            known = self.list_commands(ctx)
            ctx.fail(f"No such command {name!r}.{meant(name, known)}")
        return super().resolve_command(ctx, args)


def meant(value: str, known: Sequence[str]) -> str:
    """A question with the one of ``known`` that is nearest to ``value``; empty if none is."""
    found = nearest(value, known)
    return f" Did you mean {found!r}?" if found is not None else ""
