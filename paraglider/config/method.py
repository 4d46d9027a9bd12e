"""The configuration's part of a forward method: its keys, checks and properties.

Lives here: ``Method``, the part of ``forward.base.ForwardMethod`` that the configuration and the
layers below ``forward`` ask for, and ``METHODS``, the methods by name.
Rules: ``METHODS`` is empty until ``paraglider.forward.registry`` is imported, which fills it; so
imports point down, and the model's error messages and schema still name every method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from paraglider.config.diagnostics import Path, Problem

if TYPE_CHECKING:
    from paraglider.config.model import Config, Service


class Method(ABC):
    """What a service's ``forward`` names. Attributes are facts that hold for all its services."""

    #: the value of ``forward``
    name: ClassVar[str]

    #: optional keys of a service that this method takes
    options: ClassVar[frozenset[str]] = frozenset()

    #: packets (the first of a flow, or all) pass the queue of a worker
    queued: ClassVar[bool] = False

    #: a proxy worker listens at the VIP and accepts the connections
    listens: ClassVar[bool] = False

    #: the kernel's conntrack has the flows, translates and counts them; a worker decides once
    conntracked: ClassVar[bool] = False

    #: a worker has the flows in its own table, and in a journal for its successor
    journalled: ClassVar[bool] = False

    #: the VIP is an address of this host; else only the backends have it
    owns_vip: ClassVar[bool] = True

    #: the backends have to be in a network of the private interface
    neighbours: ClassVar[bool] = False

    #: an address of loopback can be a VIP or a backend
    loopback: ClassVar[bool] = False

    @abstractmethod
    def check(self, path: Path, service: Service, config: Config) -> Iterable[Problem]:
        """The errors of ``service``, which has this method and is at ``path`` in ``config``, except
        keys that the method does not take (``options``).
        """

    @abstractmethod
    def describe(self, service: Service) -> str:
        """The properties of the method for ``service``: cost, requirements, what the backends
        see.
        """

    def answers(self, service: Service) -> Literal["via", "direct"]:
        """The way of the replies: through this host, or from the backend to the client."""
        return service.return_

    def answers_pass(self, service: Service) -> bool:
        """Whether packets of the backends' answers are forwarded by this host."""
        return self.queued and self.answers(service) == "via"


#: the registered methods by their names, in the order of the registry; the first is the default
METHODS: dict[str, Method] = {}


def method_names() -> tuple[str, ...]:
    """The names of the registered methods; raises ``RuntimeError`` when there is none."""
    if not METHODS:
        raise RuntimeError("no forwarding method is registered: import paraglider.forward.registry")
    return tuple(METHODS)


def default_method() -> str:
    """The method of a service without ``forward``."""
    return method_names()[0]
