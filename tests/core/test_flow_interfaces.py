"""What is written for the interfaces of ``core.flow_interfaces`` has all that they ask for."""

from __future__ import annotations

import pytest

from paraglider.core.compact import CompactFlows
from paraglider.core.flow_interfaces import CompactFlowsOf, FlowCarrier, UnreadFlows
from paraglider.core.unread import Unread
from paraglider.forward.carrier import Carrier


@pytest.mark.parametrize(
    ("interface", "made"),
    [(FlowCarrier, Carrier), (UnreadFlows, Unread), (CompactFlowsOf, CompactFlows)],
)
def test_every_method_is_there(interface: type, made: type) -> None:
    """And can be called, compiled too."""
    wanted = {name for name in vars(interface) if not name.startswith("_")}
    assert wanted
    assert all(callable(getattr(made, name)) for name in wanted)
