"""The metrics of the carrier of flows, BPF or the workers.

Lives here: ``CARRIER``, a section of ``metrics``.
Rules: as in ``metrics``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from paraglider.daemon.http.exposition import Described, MetricSection, Row, Values, plain

#: reasons of ``bpf.layout`` that do not count packets once: events, and what XDP left to tc
_EVENTS: Final = "events_lost"
_LEFT_BY_XDP: Final = ("no_xmit", "neighbour", "unfinished")


def _rows(status: Row) -> Iterable[Row]:
    """The carrier as a row, if the method of a service has several carriers."""
    chosen = any(service.get("carrier") for service in status["services"])
    return [status["carrier"]] if chosen else []


def _packets(row: Row) -> Values:
    others = (_EVENTS, *_LEFT_BY_XDP)
    return [((why,), count) for why, count in row["packets"].items() if why not in others]


def _left_by_xdp(row: Row) -> Values:
    return [((why,), row["packets"][why]) for why in _LEFT_BY_XDP if why in row["packets"]]


CARRIER: Final = MetricSection(
    _rows,
    (),
    (
        Described(
            "paraglider_carrier_info",
            "What carries the flows of services with `carrier: auto`, `bpf` or `xdp`, and why not"
            " BPF; the value is always 1.",
            lambda row: [((row["carrier"], row["reason"]), 1)],
            ("carrier", "reason"),
        ),
        Described("paraglider_carrier_flows", "Flows that BPF carries.", plain("flows")),
        Described(
            "paraglider_carrier_refused_flows_total",
            "Flows for which the kernel refused an entry: a worker carries them.",
            plain("refused"),
        ),
        Described(
            "paraglider_carrier_packets_total",
            "Packets that the BPF program saw since its maps were made: `carried`, or why it left "
            "them to the workers.",
            _packets,
            ("reason",),
        ),
        Described(
            "paraglider_carrier_xdp_left_packets_total",
            "Packets of flows that XDP left to tc, and why; the metric of packets has what tc did"
            " with them.",
            _left_by_xdp,
            ("reason",),
        ),
        Described(
            "paraglider_carrier_lost_events_total",
            "Events of flows for which a worker's ring had no room; the worker reads its flows "
            "again.",
            lambda row: [((), row["packets"].get(_EVENTS))],
        ),
    ),
)
