"""Tests of ``paraglider.config.service``: defaults and names of methods."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from paraglider.config.diagnostics import Path, Problem
from paraglider.config.model import Network, Service
from paraglider.config.service import METHODS, Method, default_method, method_names
from paraglider.forward import registry


class Silent(Method):
    """A method that leaves out all that it may."""

    name = "silent"

    def check(self, path: Path, service: Service, network: Network) -> Iterable[Problem]:
        """No problems."""
        return ()

    def describe(self, service: Service) -> str:
        """An empty description."""
        return ""


class Queued(Silent):
    """A method that queues packets."""

    queued = True


def service(**changes: str) -> Service:
    """A service with these keys."""
    base = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
    return Service.model_validate({**base, **changes})


def test_the_names_are_those_of_the_registry() -> None:
    """In its order; a service without a method gets the first."""
    assert method_names() == tuple(method.name for method in registry.methods())
    assert default_method() == method_names()[0] == service().forward
    assert all(method.name == name for name, method in METHODS.items())


def test_without_a_registry_nothing_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that uses only the model gets an error that names the import."""
    monkeypatch.setattr("paraglider.config.service.METHODS", {})
    for ask in (method_names, default_method, service):
        with pytest.raises(RuntimeError, match=r"import paraglider\.forward\.registry"):
            ask()


@pytest.mark.parametrize(
    ("method", "keys", "passes"),
    [
        (Silent(), {}, False),
        (Queued(), {}, True),
        (Queued(), {"return": "direct"}, False),
        (Silent(), {"return": "direct"}, False),
    ],
)
def test_answers_pass_where_packets_are_queued_both_ways(
    method: Method, keys: dict[str, str], passes: bool
) -> None:
    """By the service's `return`, unless the method defines it."""
    one = service(**keys)
    assert method.answers(one) == one.return_ == keys.get("return", "via")
    assert method.answers_pass(one) == passes


def test_a_method_has_no_checks_and_no_notes_by_default() -> None:
    """By default a method has neither."""
    with pytest.raises(TypeError, match="abstract"):
        Method()  # type: ignore[abstract]
