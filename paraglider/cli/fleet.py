"""`paraglider fleet show | drain | maint | ready | check --nodes lb1,lb2`: several balancers.

Each of them is asked by `ssh NODE paraglider …`: no further port is open.

Lives here: the click group ``fleet``.
Rules: prints what the balancers answer. One that does not answer is a row with the reason, and then
the exit code is 1. A change is made at one balancer after the other, and ends with the first that
refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
from rich.text import Text

from paraglider.cli import tables
from paraglider.cli.choices import CommandGroup
from paraglider.cli.common_options import json_option, print_json, print_table
from paraglider.cli.durations import DurationRange
from paraglider.cli.errors import EXIT_MISTAKE
from paraglider.cli.listing import Column, TextTable
from paraglider.cli.top_screen import rate
from paraglider.daemon.web.fleet import Fleet
from paraglider.host.remote import Remote, failures, node_names

#: asks a balancer for its whole status, with the rates of half a second
_STATUS: Final = ("top", "--once", "--interval", "0.5", "--json")

_ANNOUNCED: Final = {None: "-", True: "yes", False: "no"}

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The balancers that the command line names, and how to reach them."""

    names: tuple[str, ...]
    remote: Remote

    def status(self) -> Fleet:
        """The status of all of them; raises ``ParagliderError`` if ssh cannot be run."""
        return Fleet(self.remote.ask(self.names, _STATUS))


def _node_options(command: Command) -> Command:
    """Add the options that name the balancers."""
    for option in (
        json_option,
        click.option(
            "--timeout",
            type=DurationRange(0.1, 600),
            default=10.0,
            metavar="SECONDS",
            help="Deadline of a balancer's answer, such as 10 or 30s. Default: 10.",
        ),
        click.option(
            "--program",
            default="paraglider",
            metavar="COMMAND",
            help="The command there, for example 'sudo -n paraglider'. Default: paraglider.",
        ),
        click.option(
            "--ssh",
            metavar="COMMAND",
            help="The command that reaches a balancer, for example 'ssh -F file'. Default: ssh,"
            " which asks for no password.",
        ),
        click.option(
            "--nodes", required=True, metavar="NAMES", help="The balancers, for example lb1,lb2."
        ),
    ):
        command = option(command)
    return command


def _change_options(command: Command) -> Command:
    """Add what `drain`, `maint` and `ready` take."""
    force = click.option(
        "--force", is_flag=True, help="Also if another backend drains, or a balancer is silent."
    )
    changed = _node_options(force(command))
    return click.argument("service")(click.argument("backend")(changed))


def _nodes(nodes: str, ssh: str | None, program: str, timeout: float) -> _Nodes:
    return _Nodes(node_names(nodes), Remote.of(ssh, program, timeout))


@click.group(cls=CommandGroup)
def fleet() -> None:
    """Show and change several balancers, each by `ssh NODE paraglider`."""


@fleet.command(short_help="List the services of all balancers, and mark what differs.")
@_node_options
@click.pass_context
def show(ctx: click.Context, /, as_json: bool, **which: Any) -> None:
    """List each service at each balancer. The last column has what most others have otherwise."""
    found = _nodes(**which).status()
    if as_json:
        print_json({"nodes": found.node_rows(), "services": found.service_rows()})
    else:
        print_table(_table(found))
    _end(ctx, failed=bool(found.errors))


@fleet.command(short_help="Find what the balancers do not agree about.")
@_node_options
@click.pass_context
def check(ctx: click.Context, /, as_json: bool, **which: Any) -> None:
    """Compare versions, files, seeds, and what decides about new flows.

    The addresses, interfaces, cores and memory of a balancer are its own. The exit code is 1 if
    they do not agree.
    """
    found = _nodes(**which).status()
    findings = list(found.findings())
    agree = not (findings or found.errors)
    if as_json:
        words = [each.words() for each in findings]
        print_json({"agree": agree, "errors": found.errors, "findings": words})
    else:
        for node, why in found.errors.items():
            print(f"{node}: {why}")
        for each in findings:
            print(each.line)
        if agree:
            print(f"{len(found.nodes)} balancers agree")
    _end(ctx, failed=not agree)


@fleet.command(short_help="Drain a backend at all balancers.")
@_change_options
@click.pass_context
def drain(ctx: click.Context, /, **given: Any) -> None:
    """Drain BACKEND of SERVICE at one balancer after the other, as `paraglider set backend` does.

    It is refused while another backend of the service drains at a balancer that does not see the
    answers: such a balancer finds a flow that began at another one by one change of the backends,
    not by two. When that backend has no flows left, set it to maint.
    """
    _set(ctx, "drain", **given)


@fleet.command(short_help="Set a backend to maint at all balancers.")
@_change_options
@click.pass_context
def maint(ctx: click.Context, /, **given: Any) -> None:
    """Set BACKEND of SERVICE to maint: no new flows, and its health is ignored. Drain it first."""
    _set(ctx, "maint", **given)


@fleet.command(short_help="Have a backend take new flows at all balancers.")
@_change_options
@click.pass_context
def ready(ctx: click.Context, /, **given: Any) -> None:
    """Set BACKEND of SERVICE to ready, which ends drain and maint."""
    _set(ctx, "ready", **given)


def _set(
    ctx: click.Context,
    state: str,
    service: str,
    backend: str,
    *,
    force: bool,
    as_json: bool,
    **which: Any,
) -> None:
    nodes = _nodes(**which)
    before = nodes.status()
    problem = before.obstacle(service, backend, state)
    if problem is not None and not force:
        raise problem
    place = f"{service}/{backend}"
    rows: list[dict[str, Any]] = []
    for node in nodes.names:
        answer = nodes.remote.ask([node], ("set", "backend", place, "state", state, "--json"))
        error = failures(answer).get(node)
        rows.append({"node": node, "error": error})
        if not as_json:
            print(f"{node}: {error or f'{place} {state}'}", flush=True)
        if error is not None and node not in before.errors:
            break
    untried = nodes.names[len(rows) :]
    rows += [{"node": node, "error": "not tried"} for node in untried]
    failed = any(row["error"] for row in rows)
    if as_json:
        print_json({"service": service, "backend": backend, "state": state, "nodes": rows})
    elif failed:
        if untried:
            print(f"not tried: {', '.join(untried)}")
        print("the balancers do not agree now: see `paraglider fleet show`")
    _end(ctx, failed=failed)


def _table(found: Fleet) -> TextTable:
    """One line for each service at each balancer, and for each balancer that gave no answer."""
    listing = TextTable(
        (
            Column("Service", least=8),
            Column("Node", least=8),
            Column("Health", rank=3),
            Column("Version", rank=4),
            Column("Announced", rank=5),
            Column("Ready", right=True),
            Column("Flows", right=True),
            Column("Conns/s", right=True, rank=2),
            Column("Fingerprint", rank=1),
            Column("Differs", least=20),
        )
    )
    nodes = {row["node"]: row for row in found.node_rows()}
    for row in found.service_rows():
        node = nodes[row["node"]]
        there = row["ready"] is not None
        listing.add(
            row["service"],
            row["node"],
            node["health"],
            node["version"],
            _ANNOUNCED[row["announced"]],
            f"{row['ready']}/{row['backends']}" if there else "-",
            tables.quantity(row["flows"]),
            rate(row["conns_per_second"]),
            row["fingerprint"] or "-",
            Text("! " + ", ".join(row["differs"]) if row["differs"] else "", "yellow"),
        )
    for name, why in found.errors.items():
        listing.add("-", name, "-", "-", "-", "-", "-", "-", "-", Text(f"! {why}", "red"))
    return listing


def _end(ctx: click.Context, *, failed: bool) -> None:
    if failed:
        ctx.exit(EXIT_MISTAKE)
