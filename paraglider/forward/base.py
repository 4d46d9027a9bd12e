"""``ForwardMethod``: all that one way of forwarding is, in one folder of ``forward``.

Lives here: the base class of the methods that ``forward.registry`` lists.
Rules: a method's folder is imported by the registry, and by no other method's folder; whoever
wants to know something of a service's method asks ``service.method`` (what the configuration
knows, ``config.method``) or ``registry.of(service)`` (all of it), and compares no name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.method import Method

if TYPE_CHECKING:
    from paraglider.config.model import Config, Service


class ForwardMethod(Method):
    """A forwarding method; a folder of ``forward`` has a subclass in its ``method.py``."""

    def check(self, path: Path, service: Service, config: Config) -> Iterable[Problem]:
        """See ``config.method.Method``; a method without contradictions of its own has none."""
        return ()
