"""Which flows of a method are steered to a worker, by the rules that the method has.

Lives here: ``method_steered_by_client``, and ``flows_of``, the flows of one worker.
Rules: pure. Methods that share their chains (``rule_parts``) are steered alike: one service with
``affinity: client`` among them has all of them steered by the client's address.
"""

from __future__ import annotations

from paraglider.config.model import Config
from paraglider.config.service import METHODS, Method
from paraglider.core.hmark import WorkerShare
from paraglider.forward.rule_parts import shares_chains
from paraglider.netfilter.rules.steering import steered_by_client


def method_steered_by_client(config: Config, method: Method, family: int) -> bool:
    """Whether the packets of ``method`` and ``family`` (4 or 6) are steered by the client's address
    alone.
    """
    shared = shares_chains(method)
    return steered_by_client(
        tuple(
            service
            for service in config.services
            if service.family == family
            and (shares_chains(service.method) if shared else service.method is method)
        )
    )


def flows_of(config: Config, worker: int, workers: int, seed: int, method: str) -> WorkerShare:
    """The flows of the method called ``method`` that are steered to number ``worker`` of
    ``workers``, by the ``seed`` of the rules for ``config``.
    """
    found = METHODS[method]
    by_client = (
        method_steered_by_client(config, found, 4),
        method_steered_by_client(config, found, 6),
    )
    return WorkerShare(worker, workers, seed, by_client)
