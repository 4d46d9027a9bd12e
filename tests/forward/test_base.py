"""Tests of ``paraglider.forward.base``: the defaults of a method."""

from __future__ import annotations

import pytest

from paraglider.config.model import Config, Service
from paraglider.core.balancer import Balancer
from paraglider.core.service import ServiceMap
from paraglider.forward.base import ForwardMethod
from paraglider.forward.datapath import HEAD, DatapathContext
from paraglider.forward.host_needs import HostNeeds
from paraglider.forward.registry import methods
from paraglider.forward.rule_parts import MethodRules, RuleScope
from paraglider.netfilter.rules.backend import Need


class Least(ForwardMethod):
    """A method that leaves out all that it may."""

    name = "least"

    def describe(self, service: Service) -> str:
        """An empty description."""
        return ""

    def backend_need(self, service: Service) -> tuple[Need, str]:
        """No needs."""
        return "nothing", ""


SERVICE = {"name": "web", "vip": "192.168.0.11/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
CONFIG = Config.model_validate({"services": [SERVICE]})


def test_a_method_asks_for_nothing_that_it_does_not_name() -> None:
    """No rules, no tables, nothing of the host; nothing is wrong with its services."""
    least = Least()
    assert list(least.check((), CONFIG.services[0], CONFIG)) == []
    assert least.rules(RuleScope(CONFIG, 4, (0,), 1, (), ())) == MethodRules((), None)
    assert list(least.nft_tables(CONFIG, 4)) == []
    assert least.kernel_table(CONFIG, 4, (), 1) is None
    assert least.host_needs(CONFIG, 4) == HostNeeds((), ())
    assert (least.decided, least.passing, least.table_names) == ("", (), ())
    assert (least.openings, least.head) == (None, HEAD)
    least.check_host(CONFIG, 4, {}, ())


@pytest.mark.parametrize(
    "method",
    [Least(), *(each for each in methods() if not each.queued)],
    ids=lambda method: method.name,
)
def test_a_method_without_queue_has_no_datapath(method: ForwardMethod) -> None:
    """The error says so."""
    with pytest.raises(TypeError, match=f"^{method.name}: no packet passes the queue"):
        method.datapath(DatapathContext(CONFIG, 0.0, Balancer(ServiceMap([]))))


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_facts_go_together(method: ForwardMethod) -> None:
    """A method that queues has marks, limits and rules; one that does not has none. Packets pass
    the FORWARD chain unless the method sends them itself.
    """
    assert bool(method.decided) == (method.openings is not None) == method.queued
    assert bool(method.passing) == (method.queued and not method.sends)
    assert not (method.listens and method.queued)
    assert not (method.journalled and method.conntracked)
    assert (method.kernel_table(CONFIG, 6, (), 1) is None) or method.conntracked
