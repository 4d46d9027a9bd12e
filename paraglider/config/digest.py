"""Digests of a file, by which balancers compare their files without sending them.

Lives here: ``digesting``.
Rules: pure. Only what is to be the same on all balancers of one VIP is in a digest. A host has its
own addresses and interfaces, and as many cores and as much memory as it has. The order of services
and of backends is left out; the seeds have a digest of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

from paraglider.config.model import Config, Service
from paraglider.config.steps import Steps

#: sections that are about one host
_OF_THE_HOST: Final = frozenset({"workers", "flows", "control", "stats"})
#: keys, at any depth of a section, whose values are addresses or interfaces of one host: whether
#: they are given is compared, their values are not
_OWN: Final = frozenset({"interface", "gateway", "snat", "next_hop", "neighbors"})
#: keys of which only that is compared, too: a short secret could be guessed from a digest
_SECRET: Final = frozenset({"password"})
#: services and backends in one step
_AT_ONCE: Final = 600


def digesting(config: Config) -> Steps[dict[str, str]]:
    """Compute a digest of each section of ``config``, in 16 hexadecimal digits, by its name."""
    plain = config.model_dump(mode="json", by_alias=True, exclude={"services"})
    services: dict[str, str] = {}
    done = 0
    for service in config.services:
        services[service.name] = _digest(_shared(_without_order(service)))
        done += 1 + len(service.backends)
        if done >= _AT_ONCE:
            done = 0
            yield
    seeds = {service.name: service.seed for service in config.services}
    sections = {name: value for name, value in plain.items() if name not in _OF_THE_HOST}
    sections |= {"seed": [plain["seed"], seeds], "services": services}
    return {name: _digest(_shared(value)) for name, value in sections.items()}


def _without_order(service: Service) -> dict[str, Any]:
    """``service`` without its seed, and with its backends in an order that is not the file's."""
    plain = service.model_dump(mode="json", by_alias=True, exclude={"seed"})
    if isinstance(plain["backends"], list):
        plain["backends"].sort(key=_text)
    return plain


def _shared(value: Any) -> Any:
    """``value`` without what is of one host."""
    if isinstance(value, Mapping):
        return {
            key: each is not None and each != [] if key in _OWN | _SECRET else _shared(each)
            for key, each in value.items()
        }
    return [_shared(each) for each in value] if isinstance(value, list) else value


def _digest(value: Any) -> str:
    return blake2b(_text(value).encode(), digest_size=8).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
