"""Tests of ``paraglider.host.dns_records``: from records and addresses to backends."""

from __future__ import annotations

from paraglider.host.dns_records import Record, Reply, Srv, records_of


def shown(records: tuple[Record, ...]) -> list[str]:
    """The records, short."""
    return [f"{r.address}:{r.port} {r.weight}" for r in records]


def test_a_record_for_each_address_and_port() -> None:
    """Sorted by number, not by text; one address may have several ports."""
    addresses = {"a.": Reply(("10.0.0.10", "10.0.0.9"), 1), "b.": Reply((), 1)}
    named = [Srv(0, 3, 81, "a."), Srv(0, 2, 80, "a."), Srv(0, 7, 80, "b.")]
    assert shown(records_of(named, addresses)) == [
        "10.0.0.9:80 2",
        "10.0.0.9:81 3",
        "10.0.0.10:80 2",
        "10.0.0.10:81 3",
    ]


def test_weights() -> None:
    """Weights of one endpoint are added, up to 65535; 0 becomes 1, because 0 means never here."""
    addresses = {"a.": Reply(("fd00::1",), 1), "b.": Reply(("fd00::1",), 1)}
    for weights, sum_ in (((0,), 1), ((2, 3), 5), ((0, 0), 2), ((65535, 1), 65535)):
        named = [Srv(0, w, 80, t) for w, t in zip(weights, ("a.", "b."), strict=False)]
        assert shown(records_of(named, addresses)) == [f"fd00::1:80 {sum_}"]
