"""A flow and its timeouts."""

from __future__ import annotations

from packets import V4, backend, packed

from paraglider.core.flow import TCP, Flow, FlowTimeouts
from paraglider.core.flow_states import STATE_NAMES, SYN_SENT
from paraglider.core.translation import Translation


def test_default_timeouts_are_what_the_standards_ask_for() -> None:
    """RFC 5382 REQ-5 (7,440 s, 240 s), RFC 4787 REQ-5 (120 s), RFC 5508 REQ-2 (60 s); what is
    closed is forgotten soon.
    """
    named = dict(zip(STATE_NAMES, FlowTimeouts().by_state, strict=True))
    opening = dict.fromkeys(("syn-sent", "syn-received", "unconfirmed"), 240)
    lasting = dict.fromkeys(("established", "fin-client", "fin-backend", "client-done"), 7440)
    udp = dict.fromkeys(("udp-new", "udp-answered", "udp"), 120)
    closing = {"last-ack": 240, "last-ack-backend": 240, "time-wait": 60}
    closed = {"reset": 10, "client-reset": 10, "gone": 0}
    adopted = dict.fromkeys((each for each in named if each.startswith("adopted")), 240)
    assert len(adopted) == 4
    assert named == opening | adopted | lasting | udp | closing | closed | {"icmp": 60}


def test_the_repr_of_a_flow() -> None:
    """Protocol, state and backend, and no address of a client."""
    translation = Translation(packed(V4.vip), 80, backend(V4.backends[0]))
    flow = Flow(TCP, bytes(12), bytes(12), translation, SYN_SENT, 0.0)
    assert repr(flow) == "<Flow 6 syn-sent to 10.0.0.1>"
