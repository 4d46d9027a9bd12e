"""`paraglider check`: validates a configuration file and summarizes its services.

Lives here: the click command ``check``.
Rules: reads the file and its backend files (with `--host` also the host's interfaces and
firewalls), loads and tries its policies. Queries no name server, changes nothing, needs no root.
The summary goes to stdout as `key=value`, followed by the meaning of `forward`; warnings go to
stderr. Any mistake exits with 1.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator, Sequence

import click

from paraglider.cli.main import Options, config_option
from paraglider.config.advice import warnings
from paraglider.config.check import check_interfaces
from paraglider.config.deciding import kernel_decides
from paraglider.config.model import BackendSource, Config, Service
from paraglider.config.places import find_config
from paraglider.config.sources import origins, read_files, resolved
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
@config_option
@click.option(
    "--host",
    is_flag=True,
    help="Also check this host: interfaces, routes to the backends, other firewalls, and BPF.",
)
@click.pass_obj
def check(options: Options, config: str | None, host: bool) -> None:
    """Validate a configuration file and summarize its services."""
    file = find_config(config if config is not None else options.config)
    loaded, notes = load_with_marks(file), list[str]()
    if host:
        here = {name for _, name in socket.if_nameindex()}
        loaded.refuse(check_interfaces(loaded.config, here))
        loaded, notes = with_own_addresses(loaded, options.families)
    whole = resolved(loaded.config, read_files(loaded))
    policies.load(loaded)
    for line in (*notes, *loaded.lines(warnings(loaded.config))):
        print(f"warning: {line}", file=sys.stderr)
    for line in _of_host(whole, options.families) if host else ():
        print(f"warning: {line}", file=sys.stderr)
    if host and whole.wants_bpf:
        _print_carrier(whole)
    drops = seen_from_here(whole.for_families(options.families)) if host else []
    for chain in drops:
        print(f"warning: chain {chain.chain}: {chain}", file=sys.stderr)
    names = ", ".join(dict.fromkeys(chain.chain for chain in drops))
    print(f"{file}: ok" + (f", but this host drops it: chain {names}" if names else ""))
    named, announced = origins(loaded.config), frozenset(loaded.config.announced)
    for service in whole.for_families(options.families).services:
        known = service.vip.ip in announced
        print(_summary(service, named.get(service.name), announced=known))
        print(f"  {service.forward}: {service.method.describe(service)}")
        strategy = service.strategy_class
        turns = strategy.turns(by_kernel=kernel_decides(service))
        print(f"  {service.strategy} picks {strategy.summary}{turns}.")


def _of_host(config: Config, families: frozenset[int]) -> Iterator[str]:
    """What the host's networks say against ``config``."""
    here = Host()
    yield from neighbour_table_warnings(config, families, here)
    yield from route_warnings(config, families, here)


def _print_carrier(config: Config) -> None:
    """Print what will carry the flows of services that want BPF, and why not BPF."""
    why, lacks = carrier_lack(config)
    if not why:
        lacking = check_xdp(config)
        print("carrier: xdp" if config.wants_xdp and not lacking else "carrier: bpf")
        if lacking:
            named = [one.name for one in config.services if one.wants_xdp]
            ends = f"`carrier: xdp` of {', '.join(named)} needs it"
            print(f"warning: XDP carries no flow here, and {ends}: {lacking}", file=sys.stderr)
        for lack, names in by_lack(config, lacks).items():
            what = f"BPF carries no flow of {', '.join(names)} here"
            print(f"warning: {what}{_needed(config, names)}: {lack}", file=sys.stderr)
        for line in not_carried(config):
            print(f"warning: {line}", file=sys.stderr)
        return
    ends = _needed(config, [one.name for one in config.services])
    print("carrier: worker")
    print(f"warning: BPF carries no flow here{ends}: {why}", file=sys.stderr)


def _needed(config: Config, names: Sequence[str]) -> str:
    """Which of the services ``names`` do not work without BPF."""
    needing = [one for one in config.services if one.needs_bpf and one.name in names]
    how = " or ".join(f"`carrier: {name}`" for name in sorted({one.carrier for one in needing}))
    return f", and {how} of {', '.join(s.name for s in needing)} needs it" if needing else ""


def _options(service: Service) -> dict[str, str]:
    """What carries, decides and adopts the flows of ``service``, where there is a choice."""
    names = ("carrier", "decide", "adopt")
    return {name: getattr(service, name) for name in names if name in service.method.options}


def _summary(service: Service, listed_in: BackendSource | None, *, announced: bool) -> str:
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
    return " ".join(f"{key}={value}" for key, value in facts.items())
