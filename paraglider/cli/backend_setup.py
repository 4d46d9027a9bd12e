"""`paraglider backend-setup`: sets a backend's host up for its services.

Lives here: the click command ``backend_setup``.
Rules: runs on the backend, with a copy of the balancer's file. Without `--apply` it changes nothing
and prints a shell script. With `--apply` and `--undo` it prints one line per step; warnings go to
stderr.
"""

from __future__ import annotations

import ipaddress
import shlex
import signal
import sys
from typing import get_args

import click

from paraglider.cli.choices import Choice
from paraglider.cli.main import Options, config_option
from paraglider.cli.step_printer import StepPrinter
from paraglider.cli.steps import TERMINATED
from paraglider.config.model import Config, Service
from paraglider.config.places import find_config
from paraglider.config.types import IPAddress
from paraglider.config.wording import did_you_mean
from paraglider.errors import OperatorError
from paraglider.forward import registry
from paraglider.forward.load import LoadedConfig, load_with_marks
from paraglider.host import apply, backend_plan
from paraglider.host.backend_plan import Role
from paraglider.host.changes.base import Host
from paraglider.host.checks import check_root
from paraglider.host.state import StateFile, wait_for_setup_lock
from paraglider.host.step import Step
from paraglider.host.tunnel_plan import Decapsulation
from paraglider.netfilter.rules import backend as text

PROG = "paraglider backend-setup"


@click.command("backend-setup")
@click.argument("names", metavar="SERVICE...", nargs=-1)
@config_option
@click.option("--apply", "apply_", is_flag=True, help="Make the changes on this host.")
@click.option(
    "--undo", is_flag=True, help="Undo `--apply`; needs no file. Without SERVICE: of all services."
)
@click.option(
    "--backend", metavar="ADDRESS", help="Backend of this host. Default: found by its addresses."
)
@click.option(
    "--decapsulation",
    type=Choice(get_args(Decapsulation)),
    help="What removes the outer headers of `forward: tunnel`: devices of the kernel, or BPF."
    " Default: auto, the devices where the kernel has them.",
)
@click.option("--tc", is_flag=True, help="Print the rewriting of responses for tc instead of nft.")
@click.pass_obj
def backend_setup(
    options: Options,
    names: tuple[str, ...],
    config: str | None,
    apply_: bool,
    undo: bool,
    backend: str | None,
    decapsulation: Decapsulation | None,
    tc: bool,
) -> None:
    """Print the commands that a backend's host needs for SERVICE..., or run them.

    Depending on the service's `forward` and `return` these are: the VIP on loopback, a route
    through the balancer, rules that rewrite responses, the end of a tunnel, or nothing.
    """
    if (apply_ and undo) or (tc and (apply_ or undo)):
        raise OperatorError("--apply, --undo and --tc exclude each other", "give one of them")
    if decapsulation is not None and (undo or tc):
        raise OperatorError(
            f"--decapsulation has no meaning with {'--undo' if undo else '--tc'}", "leave it out"
        )
    if undo:
        check_root(PROG)
        with wait_for_setup_lock():
            _undo(names)
        return
    loaded = load_with_marks(find_config(config if config is not None else options.config))
    services = _services(loaded, names)
    if decapsulation is not None and not any(map(_is_tunnel, services)):
        what = f"--decapsulation has no meaning for {', '.join(names)}, without `forward: tunnel`"
        raise OperatorError(what, "leave it out")
    way = decapsulation or "auto"
    named = _address(backend)
    host = Host()
    roles = [backend_plan.find_backends(service, host, named) for service in services]
    if apply_:
        check_root(PROG)
        # SIGTERM must roll back too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
        with wait_for_setup_lock():
            _apply(loaded.config, roles, host, way)
    else:
        made: set[tuple[str, ...]] = set()
        shown = (
            _tc(loaded.config, role, host) if tc else _script(loaded.config, role, host, made, way)
            for role in roles
        )
        print("#!/bin/sh -e\n" + "".join(shown), end="")


def _services(loaded: LoadedConfig, names: tuple[str, ...]) -> list[Service]:
    known = {service.name: service for service in loaded.config.services}
    there = f"the services of {loaded.file}: {', '.join(known)}"
    if not names:
        raise OperatorError("no SERVICE given", there)
    for name in names:
        if name not in known:
            remedy = did_you_mean(name, known) + there
            raise OperatorError(f"there is no service {name!r}", remedy)
    return [known[name] for name in dict.fromkeys(names)]


def _is_tunnel(service: Service) -> bool:
    return registry.of(service).backend_need(service)[0] == "decapsulate"


def _address(given: str | None) -> IPAddress | None:
    try:
        return None if given is None else ipaddress.ip_address(given)
    except ValueError:
        raise OperatorError(
            f"--backend {given!r} is not an IP address", "give one of the service's backends"
        ) from None


def _apply(config: Config, roles: list[Role], host: Host, decapsulation: Decapsulation) -> None:
    printer, state = StepPrinter(), _state()
    # Check all services before the first change.
    for role in roles:
        plan = backend_plan.make_plan(config, role, host, state.load(), decapsulation)
        backend_plan.require(plan, host)
    for role in roles:
        steps = backend_plan.make_plan(config, role, host, state.load(), decapsulation)
        if not steps:
            why = registry.of(role.service).backend_need(role.service)[1]
            print(f"nothing to do for `{role.service.name}`: {why}")
            continue
        apply.set_up(steps, host, state, printer)
        for note in backend_plan.notes(config, role, host, decapsulation):
            print(f"warning: {role.service.name}: {note}", file=sys.stderr)
    if not printer.empty:
        printer.print_totals()


def _undo(names: tuple[str, ...]) -> None:
    host, state = Host(), _state()
    served = backend_plan.served(state.load())
    for name in names:
        if served and name not in served:
            raise OperatorError(
                f"{name!r} is not set up here", f"the services here: {', '.join(served)}"
            )
    printer = StepPrinter()
    for name in names or served:
        apply.revert_steps(backend_plan.undo_plan(name, state.load()), host, state, printer)
    if printer.empty:
        print("nothing to undo")
    else:
        printer.print_totals()


def _state() -> StateFile:
    return StateFile(purpose="backend")


def _script(
    config: Config,
    role: Role,
    host: Host,
    made: set[tuple[str, ...]],
    decapsulation: Decapsulation,
) -> str:
    """The commands for one service. ``made`` are the changes of the services before it; this one's
    are added.
    """
    steps = backend_plan.make_plan(config, role, host, (), decapsulation)
    lines = _head(role)
    lines += [f"# Note: {note}." for note in backend_plan.notes(config, role, host, decapsulation)]
    if not steps:
        lines.append("# Nothing to do.")
    shared = [step for step in steps if step.change.identity in made]
    steps = [step for step in steps if step.change.identity not in made]
    made |= {step.change.identity for step in steps}
    lines += [line for step in shared for line in ("", f"# Done above: {step.describe()}")]
    for step in steps:
        lines += _commands(step, host)
    back = [step.change.revert_script(host) for step in reversed(steps) if step.action == "apply"]
    if any(back):
        lines += ["", "# To undo it:"]
        lines += [f"# {line}" for line in "".join(back).splitlines()]
    return "".join(f"{line}\n" for line in lines)


def _commands(step: Step, host: Host) -> list[str]:
    commands = step.script(host).splitlines()
    if step.action == "keep":
        return ["", f"# There already: {step.describe()}"]
    return ["", f"# {step.describe()}", *commands] if commands else []


def _tc(config: Config, role: Role, host: Host) -> str:
    service = role.service
    needed, why = registry.of(service).backend_need(service)
    if needed != "rewrite":
        raise OperatorError(f"`{service.name}` has no answers to rewrite: {why}", "leave --tc out")
    unfit = text.tc_unfit(service, backend_plan.local_ports(host))
    if unfit is not None:
        raise OperatorError(f"`{service.name}`: {unfit}", "leave --tc out: nft does it")
    sparing = text.spared(config.network, service, role.own)
    route = host.netlink.route_towards(service.vip.ip)
    interface = shlex.quote("eth0" if route is None else route.interface)
    commands = text.tc_script(service, role.backends, sparing, interface)
    lines = [
        *_head(role),
        "# DEV is the interface on which answers to clients leave; needs act_nat and cls_u32.",
        "",
        *commands.splitlines(),
        "",
        "# To undo it: tc qdisc del dev $DEV clsact",
    ]
    return "".join(f"{line}\n" for line in lines)


def _head(role: Role) -> list[str]:
    service = role.service
    addresses = ", ".join(dict.fromkeys(str(backend.address) for backend in role.backends))
    way = f"forward: {service.forward}, return: {service.answers}"
    why = registry.of(service).backend_need(service)[1]
    return [
        "",
        f"# Backend {addresses} of `{service.name}`: VIP {service.vip.ip}, {way}.",
        f"# {why[0].upper()}{why[1:]}.",
    ]
