"""``paraglider explain``: which backend a flow gets and why, and which flows another file moves.

Rules: changes nothing and needs no root. States and flows of the daemon come from its listings
(`--flows`, `--backends`), else from its control socket; if that does not answer, or with
`--offline`, from the file alone.
"""

from __future__ import annotations

import ipaddress
import json
import sys
from pathlib import Path
from typing import NamedTuple

import click

from paraglider.cli import explain_output
from paraglider.cli.common_options import control_client, json_option, print_json
from paraglider.cli.main import Options, config_option
from paraglider.config import source
from paraglider.config.addresses import fill_addresses
from paraglider.config.places import find_config
from paraglider.config.sources import read_files, resolved
from paraglider.config.types import IPAddress, parse_address, parse_endpoint
from paraglider.core.client_hello import Hello, plain_name
from paraglider.core.flow import ICMP, ICMP6, TCP, UDP
from paraglider.core.strategies import NewFlow
from paraglider.daemon.http.client import ControlClient
from paraglider.errors import OperatorError, ParagliderError
from paraglider.forward.explain import Capture, Situation, compare, impacts
from paraglider.forward.listing import (
    NOTHING,
    LiveState,
    backends_in,
    deciding_in,
    flow_key,
    flows_in,
)
from paraglider.forward.load import load_with_marks
from paraglider.host import policies
from paraglider.host.capture import ip_packets
from paraglider.host.own_addresses import host_addresses
from paraglider.host.seed import known_seed


@click.command()
@click.argument("flow", nargs=-1, metavar="[PROTOCOL CLIENT VIP]")
@config_option
@click.option("--pcap", metavar="FILE", help="Explain each flow to a service in a packet capture.")
@click.option(
    "--against", metavar="FILE", help="Print which flows this configuration file would move."
)
@click.option(
    "--flows",
    metavar="FILE",
    help="Live flows: output of `paraglider flows --json`; -: standard input.",
)
@click.option(
    "--backends",
    metavar="FILE",
    help="States: output of `paraglider show backends --json`; -: standard input.",
)
@click.option("--sni", metavar="NAME", help="Name that a TLS client asks for (`route`).")
@click.option("--alpn", metavar="PROTOCOL", multiple=True, help="Protocol that it offers.")
@click.option("--offline", is_flag=True, help="Do not ask the running daemon.")
@json_option
@click.pass_obj
def explain(
    options: Options,
    flow: tuple[str, ...],
    config: str | None,
    pcap: str | None,
    against: str | None,
    flows: str | None,
    backends: str | None,
    sni: str | None,
    alpn: tuple[str, ...],
    offline: bool,
    as_json: bool,
) -> None:
    """Print which service and backend a flow gets, and why.

    A flow is written `tcp 192.0.2.7:40000 192.168.0.11:80` (tcp, udp), or `icmp 192.0.2.7
    192.168.0.11`, where an optional client port is the identifier of the echo.
    """
    if not (flow or pcap or against):
        raise click.UsageError("nothing to explain: give a flow, --pcap or --against")
    if flows == backends == "-":
        raise click.UsageError("one of --flows and --backends may be standard input")
    file = find_config(config if config is not None else options.config)
    named = _flow(flow) if flow else None
    daemon = None
    if flows or backends:
        live = LiveState(
            flows_in(_text(flows), flows) if flows else (),
            backends_in(_text(backends), backends) if backends else (),
        )
    else:
        alone = named is not None and not (pcap or against)
        client = str(ipaddress.ip_address(named.client)) if named is not None and alone else None
        daemon = None if offline else _daemon(control_client(options, config), client)
        live = NOTHING if daemon is None else daemon.live
    situation = _situation(str(file), options, live)
    report = explain_output.ExplainReport(situation)
    if daemon is not None:
        report.daemon(daemon.socket, len(live.flows), daemon.more)
    if named is not None:
        said = sni is not None or bool(alpn)
        report.flow(named, Hello(plain_name(sni or ""), alpn) if said else None)
    capture = _captured(pcap, situation) if pcap else None
    if capture is not None:
        report.capture(capture)
    if against is not None:
        changed = _situation(against, options, live.after_a_change())
        report.against(against, compare(situation, changed))
        if capture is not None:
            picked = ((each.flow, None) for each in capture.flows.values())
            report.moved("pcap", impacts(picked, situation, changed, lives=False))
        if flows is not None or daemon is not None:
            living = ((each.flow, each.backend) for each in live.flows)
            report.moved("live", impacts(living, situation, changed, lives=True))
    if as_json:
        print_json(report.data)
    else:
        print("\n".join(explain_output.lines(report.data)))


class _DaemonState(NamedTuple):
    """The answers of the daemon at ``socket``; ``more`` is whether it has flows that are not
    listed.
    """

    socket: str
    live: LiveState
    more: bool


def _daemon(control: ControlClient, client: str | None) -> _DaemonState | None:
    """The daemon's backends and flows, all or those of ``client``; None if no daemon answers."""
    try:
        flows, backends = control.get("flows", client=client), control.get("backends")
        services = control.get("services")
        live = LiveState(
            flows_in(json.dumps(flows), control.path),
            backends_in(json.dumps(backends), control.path),
            deciding_in(json.dumps(services), control.path),
        )
    except ParagliderError:
        return None
    return _DaemonState(control.path, live, bool(flows.get("more")))


def _situation(file: str, options: Options, live: LiveState) -> Situation:
    loaded = load_with_marks(file)
    config = resolved(loaded.config, read_files(loaded)).for_families(options.families)
    config = fill_addresses(config.seeded(known_seed()), options.families, host_addresses()).config
    registry = policies.load(loaded)
    policies.import_as(config.user, registry)
    return Situation(config, registry, live)


def _text(file: str) -> str:
    if file == "-":
        return source.read_from(sys.stdin.buffer, "standard input")
    return source.read(file, "name a file, or - for standard input", pipes=True)


def _flow(words: tuple[str, ...]) -> NewFlow:
    """The flow of the command line; raises ``OperatorError``."""
    shape = "write `tcp CLIENT:PORT VIP:PORT`, udp likewise, or `icmp CLIENT VIP`"
    if len(words) != 3 or words[0] not in ("tcp", "udp", "icmp"):
        raise OperatorError(f"`{' '.join(words)}` is not a flow", shape)
    echo = words[0] == "icmp"
    try:
        (client, client_port), (vip, port) = (_end(word, echo) for word in words[1:])
    except ValueError as error:
        what, _, remedy = str(error).partition("; ")
        raise OperatorError(what, remedy) from None
    if client.version != vip.version:
        raise OperatorError(
            f"{client} and {vip} are not of the same family", "give both over IPv4 or IPv6"
        )
    if echo:
        protocol = ICMP if vip.version == 4 else ICMP6
        port = client_port  # the identifier is both ports
    else:
        protocol = TCP if words[0] == "tcp" else UDP
    return NewFlow(protocol, flow_key(client, client_port, vip, port), 0.0)


def _end(word: str, echo: bool) -> tuple[IPAddress, int]:
    if echo:
        try:
            return parse_address(word), 0
        except ValueError:
            pass
    return parse_endpoint(word)


def _captured(pcap: str, situation: Situation) -> Capture:
    try:
        with Path(pcap).open("rb") as stream:
            return Capture().add_packets(ip_packets(stream, pcap), situation.balancer.services)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OperatorError(f"{pcap!r} cannot be read ({reason})", "name a capture") from None
