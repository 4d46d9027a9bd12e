"""The fingerprint of a service: what decides which backend a new flow gets, in a short text.

Two balancers whose fingerprints of a service are equal pick the same backend for a flow, if the
strategy is a hash. It is a hash of the VIP, protocols and ports, of the strategy with its seed and
parameters, of the affinity, and of the backends that take new flows, with their weights. It is the
same for every process, build, host and version of Python.

Lives here: ``fingerprint``.
Rules: pure. What does not decide is left out: the names of services and backends, weights and seeds
that a strategy ignores, and for a hash the order of the backends. A slow start is left out too: its
steps follow the clock of each balancer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from paraglider.core.flow import TCP
from paraglider.core.policy_guard import kind
from paraglider.core.pool import Backend, Pool
from paraglider.core.service import Ports
from paraglider.core.strategies import make
from paraglider.core.strategies.base import Context, NewFlow, Strategy
from paraglider.core.strategies.hashing import identity

#: digits of a fingerprint: two different ones are equal once in 2⁶⁴ times
DIGITS: Final = 16
#: flows whose picks tell two versions of a hash apart
_SAMPLES: Final = 256


def fingerprint(
    destination: tuple[bytes, Iterable[int], Ports],
    strategy: str,
    context: Context,
    pool: Pool,
    *,
    affinity: bool = False,
) -> str:
    """The fingerprint, in hexadecimal digits.

    ``destination`` has the packed VIP, the protocols' numbers and the ports, ``strategy`` is the
    name as in the configuration, ``pool`` has the backends in their present states and weights;
    ``affinity``: a client keeps its backend.
    """
    vip, protocols, ports = destination
    chooses = kind(strategy)
    backends = [
        [identity(each).hex(), each.full_weight if chooses.weighs else 1] for each in pool.ready
    ]
    return _digest(
        [
            [vip.hex(), sorted(protocols), sorted(ports)],
            [strategy, _parameters(chooses, context), _version_of(chooses)],
            context.seed if chooses.uses_seed else None,
            affinity,
            sorted(backends) if chooses.hashes else backends,
        ]
    )


def _parameters(chooses: type[Strategy], context: Context) -> dict[str, Any]:
    """The parameters, with the defaults; those of a policy as they are given."""
    return {each.name: each.default for each in chooses.parameters} | dict(context.parameters)


@lru_cache
def _version_of(chooses: type[Strategy]) -> str:
    """What some flows get from a hash, which tells apart two releases that hash differently."""
    if not chooses.hashes:
        return ""
    least = {each.name: each.minimum for each in chooses.parameters if not each.error(each.minimum)}
    strategy = make(chooses, Context(seed=1, parameters=least))
    strategy.prepare(tuple(Backend(str(n), bytes([10, 0, 0, n]), 0, n) for n in range(1, 6)))
    drawn = [blake2b(bytes([number]), digest_size=12).digest() for number in range(_SAMPLES)]
    return _digest([strategy.pick(NewFlow(TCP, key, 0.0)).name for key in drawn])


def _digest(value: Any) -> str:
    # Parameters of policies are what YAML has: also dates, which JSON has not.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return blake2b(text.encode(), digest_size=DIGITS // 2).hexdigest()
