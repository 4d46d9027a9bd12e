"""Warnings about valid configurations that are probably mistakes.

Lives here: ``warnings``.
Rules: a warning says what will happen, and what to write instead. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from paraglider.config.addresses import own_addresses
from paraglider.config.check_announce import announce_warnings
from paraglider.config.check_shared import ambiguous_answers
from paraglider.config.check_strategy import weighing
from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Config, Service
from paraglider.config.own_address import OwnAddress
from paraglider.core.strategies import KINDS

# Minimum timeouts that the standards require of a NAT: seconds, and the section.
MINIMA = {
    "syn": (240, "RFC 5382, REQ-5"),
    "established": (7440, "RFC 5382, REQ-5"),
    "udp": (120, "RFC 4787, REQ-5"),
    "icmp": (60, "RFC 5508, REQ-2"),
}


def warnings(config: Config) -> list[Problem]:
    """All warnings about a valid configuration, as problems."""
    found = [*_timeouts(config), *_weights(config), *_gateways(config)]
    found += [*_deciding(config), *_carrying(config), *_adopting(config)]
    found += announce_warnings(config)
    return [*found, *_failover(config), *_health(config)]


def _timeouts(config: Config) -> Iterator[Problem]:
    for name, (least, source) in MINIMA.items():
        seconds = getattr(config.timeouts, name)
        if seconds < least:
            what = f"`{name}` of {seconds} s forgets flows that are still alive"
            remedy = f"write {least} or more ({source})"
            yield Problem(("timeouts", name), what, remedy)
    if config.timeouts.closing is not None:
        what = "`closing` is an old name, and half-closed connections last as established ones do"
        yield Problem(("timeouts", "closing"), what, "write closed: {rst: 10, fin: 60}", at="key")


def _weights(config: Config) -> Iterator[Problem]:
    for index, service in enumerate(config.services):
        for number, backend in enumerate(service.backends):
            place: Path = ("services", index, "backends", number, "weight")
            if backend.weight == 0:
                what = f"backend {backend.address} has weight 0 and takes no new flows"
                yield Problem(place, what, "write 1 or more if it is to work")
            elif backend.weight != 1 and not service.strategy_class.weighs:
                what = f"`weight: {backend.weight}` has no effect with"
                what += f" `strategy: {service.strategy}`"
                yield Problem(place, what, f"use {weighing()}, or leave the weight out")


def _deciding(config: Config) -> Iterator[Problem]:
    for index, service in enumerate(config.services):
        chooses = "decide" in service.method.options and service.decide != "python"
        if chooses and not service.wants_bpf:
            what = f"`decide: {service.decide}` has no effect with `carrier: {service.carrier}`:"
            what += " the kernel decides only where BPF carries, so a worker does"
            yield Problem(("services", index, "decide"), what, "leave one of the two out")


def _carrying(config: Config) -> Iterator[Problem]:
    for index, service in enumerate(config.services):
        if service.carrier == "xdp" and service.wants_bpf and not service.method.at_xdp:
            what = f"`carrier: xdp` with `forward: {service.forward}`: the program at XDP leaves"
            what += " these packets to the one at tc"
            yield Problem(("services", index, "carrier"), what, "write `carrier: bpf`")


def _adopting(config: Config) -> Iterator[Problem]:
    # What all balancers are to have alike, or what each is to fill in: the file is for several.
    several = config.seed is not None or config.announce is not None or any(own_addresses(config))
    for index, service in enumerate(config.services):
        path: Path = ("services", index)
        if service.adopt == "never":
            continue
        if "adopt" in service.model_fields_set:
            yield from _without_effect(path, service)
        elif service.method.conntracked:
            pass  # conntrackd may tell the other balancer of its connections
        elif (several or service.seed is not None) and "adopt" in service.method.options:
            yield from _not_taken_over(path, service)
        if several or service.seed is not None or "adopt" in service.model_fields_set:
            yield from _another_hash(path, service, config)
    yield from ambiguous_answers(config, lambda s: "adopt" not in s.model_fields_set)


def _is_no_hash(service: Service) -> bool:
    """Whether its strategy is a built-in one without a hash; a policy may be one."""
    return service.strategy in KINDS and not service.strategy_class.hashes


def _without_effect(path: Path, service: Service) -> Iterator[Problem]:
    """Of a service whose file asks for adoption."""
    place = (*path, "adopt")
    if _is_no_hash(service):
        what = f"`adopt: auto` has no effect with `strategy: {service.strategy}`, which is no"
        what += " hash: segments of unknown flows are reset"
        yield Problem(place, what, "use `strategy: maglev` or `source`, or leave `adopt` out")
    elif service.snat is not None:
        what = "`adopt: auto` has no effect with `snat`: the port by which the backend knows a"
        what += " flow is known to the other balancer alone"
        yield Problem(place, what, "leave one of the two out, or run conntrackd on both")
    elif service.affinity == "client":
        what = "`adopt: auto` has no effect with `affinity: client`: a client may have had"
        what += " another backend elsewhere"
        yield Problem(place, what, "use `strategy: source`, or leave `adopt` out")


def _not_taken_over(path: Path, service: Service) -> Iterator[Problem]:
    """Of a service that adopts by default, of a file for several balancers."""
    if _is_no_hash(service):
        what = f"`strategy: {service.strategy}` is no hash, so balancers do not agree: connections"
        what += " that another one takes over are reset"
        remedy = "use `strategy: maglev` or `source`, or write `adopt: never`"
        yield Problem((*path, "strategy"), what, remedy)
    elif service.affinity == "client":
        what = "`affinity: client` is each balancer's own memory: connections that another one"
        what += " takes over are reset"
        remedy = "use `strategy: source` without `affinity`, or write `adopt: never`"
        yield Problem((*path, "affinity"), what, remedy)


def _another_hash(path: Path, service: Service, config: Config) -> Iterator[Problem]:
    """Why the hash of ``service`` names other backends at other balancers."""
    if not service.strategy_class.hashes or service.affinity == "client":
        return
    if service.strategy_class.uses_seed and service.seed is None and config.seed is None:
        asks = "adopt" in service.model_fields_set
        what = f"{'`adopt: auto`' if asks else f'`strategy: {service.strategy}`'} without a `seed`:"
        what += " each balancer draws its own, so they pick different backends"
        place = (*path, "adopt" if asks else "strategy")
        yield Problem(place, what, "write the same `seed` in the file of each balancer")
    if service.slow_start:
        what = "`slow_start`: while it lasts, balancers have different weights, so they pick"
        what += " different backends for some flows"
        yield Problem((*path, "slow_start"), what, "leave it out", at="key")


def _gateways(config: Config) -> Iterator[Problem]:
    families = {service.family for service in config.services}
    private = config.network.private
    for index, gateway in enumerate(private.gateway if private is not None else ()):
        if not isinstance(gateway, OwnAddress) and gateway.version not in families:
            what = f"gateway {gateway} serves no service: none is IPv{gateway.version}"
            remedy = "leave it out, or add a service of that family"
            yield Problem(("network", "private", "gateway", index), what, remedy)


def _failover(config: Config) -> Iterator[Problem]:
    if config.failover.enabled and config.failover.discover:
        what = "`discover` is not served yet in this version: listed backends leave and return,"
        what += " hosts that newly answer do not join"
        yield Problem(("failover", "discover"), what, "write discover: false under `failover`")


def _health(config: Config) -> Iterator[Problem]:
    for index, service in enumerate(config.services):
        path: Path = ("services", index)
        wanted, there = service.min_ready, len(service.backends)
        if service.backends and isinstance(wanted, int) and wanted > there:
            what = f"`min_ready: {wanted}` with {there} backends: `health` is always degraded"
            yield Problem((*path, "min_ready"), what, f"write {there} or less, or a share: 50%")
        check = service.check
        if check is not None and check.effective_timeout > check.interval:
            what = f"a check may take {check.effective_timeout:g} s, and the next is due after"
            what += f" {check.interval:g} s: it begins later when one hangs"
            remedy = f"write `timeout: {check.interval:g}` or less, or a longer interval"
            yield Problem((*path, "check", "timeout"), what, remedy)
        if service.slow_start and not service.strategy_class.weighs:
            what = f"`slow_start` has no effect with `strategy: {service.strategy}`, which"
            what += " ignores weights"
            yield Problem((*path, "slow_start"), what, f"use {weighing()}", at="key")
        if check is None and service.agent is None and not config.failover.enabled:
            for key in ("all_down", "on_down"):
                if key in service.model_fields_set:
                    what = f"`{key}` is for backends that go down, and nothing looks whether"
                    remedy = "give the service a `check`, or turn failover on (-f)"
                    yield Problem((*path, key), f"{what} these do", remedy, at="key")
