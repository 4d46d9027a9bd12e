"""The command `paraglider`: its options, its subcommands, its console entry point.

Lives here: the click group ``main``, ``Options`` (the group's options, for subcommands),
``config_option`` and ``config_accepted``, and ``entry``.
Rules: a subcommand's module is imported when it is used. Without a subcommand the daemon runs in
the foreground.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import NoReturn

import click

from paraglider import __version__
from paraglider.cli.choices import Choice, CommandGroup
from paraglider.cli.errors import run_command, tune_gc

# Name → the command's module and object, and its text in `paraglider --help`.
COMMANDS = {
    "announce": (
        "paraglider.cli.announce:announce",
        "Announce the VIPs to routers, by ExaBGP or BIRD.",
    ),
    "backend-setup": (
        "paraglider.cli.backend_setup:backend_setup",
        "Print, make or undo the set-up of a backend's host.",
    ),
    "carrier": (
        "paraglider.cli.carrier:carrier",
        "Print or switch what carries flows, BPF or the workers.",
    ),
    "check": ("paraglider.cli.check:check", "Validate a configuration file and summarize it."),
    "explain": (
        "paraglider.cli.explain:explain",
        "Print which backend a flow gets, and why.",
    ),
    "import": (
        "paraglider.cli.import_:import_",
        "Convert the configuration of another balancer.",
    ),
    "fleet": ("paraglider.cli.fleet:fleet", "Show, compare and change several balancers."),
    "flows": ("paraglider.cli.flows:flows", "List flows, or end them."),
    "health": ("paraglider.cli.health:health", "Print the health of the running daemon."),
    "lab": ("paraglider.cli.lab:lab", "Balance real connections in network namespaces."),
    "node": ("paraglider.cli.node:node", "Drain this balancer, or announce it again."),
    "reload": ("paraglider.cli.reload:reload", "Reload the configuration of the running daemon."),
    "set": ("paraglider.cli.set_backend:set_", "Set the state or weight of a backend."),
    "show": ("paraglider.cli.show:show", "List services, backends, flows or workers."),
    "start": ("paraglider.cli.start:start", "Let the kernel balance, without a daemon."),
    "top": ("paraglider.cli.top:top", "Show services, backends and workers live."),
    "stop": ("paraglider.cli.stop:stop", "Undo `start`."),
}


#: ``paraglider.daemon.log.STYLES``, whose module only the daemon imports
LOG_STYLES = ("auto", "text", "json", "syslog")

_CONFIG = ("-c", "--config", "-config")  # the last is the Go Paraglider's spelling

config_option = click.option(
    *_CONFIG,
    metavar="FILE",
    help="Configuration file. Default: ./paraglider.conf, then paraglider.conf or glider.yaml in"
    " /etc/paraglider.",
)

config_accepted = click.option(
    *_CONFIG,
    metavar="FILE",
    expose_value=False,
    help="Accepted, but not read: `stop` needs no file.",
)


@dataclass(frozen=True, slots=True)
class Options:
    """The options before a subcommand."""

    config: str | None
    families: frozenset[int]
    failover: bool
    debug: bool = False
    log_style: str = "auto"


class LazyGroup(CommandGroup):
    """A group that imports a subcommand's module when the subcommand is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, which is imported; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


def families(four: bool, six: bool) -> frozenset[int]:
    """The address families of `-4` and `-6`; both if neither is given."""
    chosen = {4} if four else set()
    return frozenset(chosen | ({6} if six else set()) or {4, 6})


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@config_option
@click.option("-4", "four", is_flag=True, help="Only the IPv4 services.")
@click.option("-6", "six", is_flag=True, help="Only the IPv6 services.")
@click.option(
    "-f",
    "--failover",
    is_flag=True,
    help="Enable failover: check all hosts of the backends' network.",
)
@click.option(
    "-D", "--debug", is_flag=True, help="Log each new flow and the reason for its backend."
)
@click.option(
    "-Q",
    "--queue-length",
    type=click.IntRange(1, 65536),
    metavar="LEN",
    help="Length of each worker's queue of established traffic, in packets.",
)
@click.option("-U", "--user", metavar="USER", help="User that the workers run as.")
@click.option(
    "--log",
    "log_style",
    type=Choice(LOG_STYLES),
    default="auto",
    help="Log format: key=value or JSON on stderr, or syslog. auto: JSON under systemd, else text.",
)
@click.version_option(__version__, prog_name="paraglider", message="%(prog)s %(version)s")
@click.pass_context
def main(
    ctx: click.Context,
    config: str | None,
    four: bool,
    six: bool,
    failover: bool,
    debug: bool,
    queue_length: int | None,
    user: str | None,
    log_style: str,
) -> None:
    """Balance connections over backends, in the foreground until SIGTERM or Ctrl-C.

    Run `paraglider.config` first: it sets up addresses, sysctls and rules.
    """
    chosen = families(four, six)
    ctx.obj = Options(config, chosen, failover, debug, log_style)
    if ctx.invoked_subcommand is not None:
        return
    from paraglider.cli.run import run

    run(
        config=config,
        families=chosen,
        failover=failover,
        debug=debug,
        queue_length=queue_length,
        user=user,
        log_style=log_style,
    )


def entry() -> NoReturn:
    """The console script `paraglider`."""
    tune_gc()
    run_command(main, "paraglider")
