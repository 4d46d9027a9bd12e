"""`paraglider check`: validates a configuration file and summarizes its services.

Lives here: the click command ``check``.
Rules: reads the file and its backend files (with `--host` also the host's interfaces and
firewalls), loads and tries its policies. Queries no name server, changes nothing, needs no root.
The summary goes to stdout as `key=value`, followed by the meaning of `forward`; warnings go to
stderr. With `--json` all of it is one object on stdout. Any mistake exits with 1.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence

import click

from paraglider.cli.check_report import CheckedService, FileReport
from paraglider.cli.common_options import json_option, print_json
from paraglider.cli.main import Options, config_option
from paraglider.config.advice import warnings
from paraglider.config.check import check_interfaces
from paraglider.config.deciding import kernel_decides
from paraglider.config.model import BackendSource, Config, Service
from paraglider.config.places import find_config
from paraglider.config.sources import origins, read_files, resolved
from paraglider.errors import ParagliderError
from paraglider.forward.load import load_with_marks
from paraglider.host import policies
from paraglider.host.backend_routes import route_warnings
from paraglider.host.carrier import check as carrier_lack
from paraglider.host.carrier import check_xdp
from paraglider.host.carrier_lacks import by_lack
from paraglider.host.carrier_support import not_carried
from paraglider.host.changes.base import Host
from paraglider.host.foreign import seen_from_here
from paraglider.host.neighbours import neighbour_table_warnings
from paraglider.host.own_addresses import with_own_addresses


@click.command()
@click.argument("path", metavar="[FILE]", type=click.Path(), required=False)
@config_option
@click.option(
    "--host",
    is_flag=True,
    help="Also check this host: interfaces, routes to the backends, other firewalls, and BPF.",
)
@json_option
@click.pass_context
def check(
    ctx: click.Context, path: str | None, config: str | None, host: bool, as_json: bool
) -> None:
    """Validate a configuration file and summarize its services.

    FILE is the same as -c FILE. With --json: errors and warnings, each with path, line, message and
    remedy, the services, and the exit code.
    """
    if path is not None and config is not None:
        raise click.UsageError("give the file once, as an argument or with -c")
    options: Options = ctx.obj
    report = FileReport(path or config or options.config or "")
    try:
        report.file = str(find_config(report.file or None))
        _check(report, options, host=host)
    except ParagliderError as error:
        if not as_json:
            raise
        print_json(report.data(error))
        ctx.exit(error.exit_code)
    if as_json:
        print_json(report.data())
        return
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print("\n".join(report.lines()))


def _check(report: FileReport, options: Options, *, host: bool) -> None:
    """Check the file of ``report``, and fill it in; raises ``ParagliderError``."""
    loaded = load_with_marks(report.file)
    if host:
        here = {name for _, name in socket.if_nameindex()}
        loaded.refuse(check_interfaces(loaded.config, here))
        loaded, notes = with_own_addresses(loaded, options.families)
        report.warnings += notes
    whole = resolved(loaded.config, read_files(loaded))
    policies.load(loaded)
    report.warnings += loaded.findings(warnings(loaded.config))
    if host:
        _check_host(report, whole, options.families)
    named, announced = origins(loaded.config), frozenset(loaded.config.announced)
    for service in whole.for_families(options.families).services:
        known = service.vip.ip in announced
        strategy = service.strategy_class
        turns = strategy.turns(by_kernel=kernel_decides(service))
        report.services.append(
            CheckedService(
                _facts(service, named.get(service.name), announced=known),
                service.method.describe(service),
                f"{service.strategy} picks {strategy.summary}{turns}.",
            )
        )


def _check_host(report: FileReport, config: Config, families: frozenset[int]) -> None:
    """Check ``config`` on this host: its networks, what carries flows, other firewalls."""
    here = Host()
    report.warnings += neighbour_table_warnings(config, families, here)
    report.warnings += route_warnings(config, families, here)
    if config.wants_bpf:
        report.carrier, lacking = _carrier(config)
        report.warnings += lacking
    drops = seen_from_here(config.for_families(families))
    report.warnings += [f"chain {chain.chain}: {chain}" for chain in drops]
    report.chains = tuple(dict.fromkeys(chain.chain for chain in drops))


def _carrier(config: Config) -> tuple[str, list[str]]:
    """What will carry the flows of services that want BPF, and why not BPF."""
    why, lacks = carrier_lack(config)
    if why:
        ends = _needed(config, [one.name for one in config.services])
        return "worker", [f"BPF carries no flow here{ends}: {why}"]
    lacking = check_xdp(config)
    found = []
    if lacking:
        named = [one.name for one in config.services if one.wants_xdp]
        ends = f"`carrier: xdp` of {', '.join(named)} needs it"
        found.append(f"XDP carries no flow here, and {ends}: {lacking}")
    for lack, names in by_lack(config, lacks).items():
        what = f"BPF carries no flow of {', '.join(names)} here"
        found.append(f"{what}{_needed(config, names)}: {lack}")
    found += not_carried(config)
    return "xdp" if config.wants_xdp and not lacking else "bpf", found


def _needed(config: Config, names: Sequence[str]) -> str:
    """Which of the services ``names`` do not work without BPF."""
    needing = [one for one in config.services if one.needs_bpf and one.name in names]
    how = " or ".join(f"`carrier: {name}`" for name in sorted({one.carrier for one in needing}))
    return f", and {how} of {', '.join(s.name for s in needing)} needs it" if needing else ""


def _options(service: Service) -> dict[str, str]:
    """What carries, decides and adopts the flows of ``service``, where there is a choice."""
    names = ("carrier", "decide", "adopt")
    return {name: getattr(service, name) for name in names if name in service.method.options}


def _facts(
    service: Service, listed_in: BackendSource | None, *, announced: bool
) -> Mapping[str, object]:
    """The facts of ``service``, by the names that the summary has."""
    ports = "all" if service.all_ports else ",".join(str(ports) for ports in service.ports)
    facts = {
        "service": service.name,
        "vip": service.vip,
        "protocol": service.protocol,
        "ports": ports,
        "forward": service.forward,
        "return": service.answers,
        **_options(service),
        "strategy": service.strategy,
        "affinity": service.affinity,
        "backends": len(service.backends),
        "weight": sum(backend.weight for backend in service.backends),
    }
    if listed_in is not None:
        facts["listed_in"] = listed_in.file or f"dns:{listed_in.dns}"
    if announced:
        facts["announced"] = "yes"
    return facts
