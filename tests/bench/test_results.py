"""Medians, ratios, and the document that results are kept in."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

import bench
from bench.results import METRICS, CoreResult, PeerResult, Results

HERE = Path(bench.__file__).parent
SCHEMA = json.loads((HERE / "schema.json").read_text(encoding="utf-8"))


def test_the_figure_is_the_median_of_the_rounds(results: Results) -> None:
    """One bad round does not change the figure."""
    assert results.figure("dnat", "connections") == 10_000
    assert results.rounds == 3


def test_the_median_leaves_out_rounds_without_the_metric() -> None:
    """A round in which a load failed does not count as 0."""
    peer = PeerResult("x", "x", rounds=[{"udp": 4.0}, {}, {"udp": 2.0}])
    assert peer.median("udp") == 3.0
    assert peer.median("p50") is None


def test_ratios_are_of_medians(results: Results) -> None:
    """A ratio is a median in parts of the reference's, or of another peer's."""
    assert results.ratio("nat-netlink", "connections") == pytest.approx(0.6)
    assert results.ratio("nat-netlink", "connections", "haproxy") == pytest.approx(0.6 / 0.7)


@pytest.mark.parametrize("peer", ["offload", "never-heard-of"])
def test_ratio_of_what_is_not_there(results: Results, peer: str) -> None:
    """There is no ratio where one of both is missing."""
    assert results.ratio(peer, "connections") is None
    assert results.ratio("dnat", "connections", peer) is None


def test_cpu_a_unit_is_compared_as_rates_are(results: Results) -> None:
    """Twice the time for a unit is half as good: the ratio is above 1 where a unit is cheaper."""
    assert results.ratio("nat-netlink", "us_connection") == pytest.approx(0.6)
    assert results.ratio("nat-netlink", "us_datagram", "haproxy") == pytest.approx(0.6 / 0.7)


def test_the_reference_has_as_many_backends(results: Results) -> None:
    """With one backend it is DNAT over one, in runs that have that; otherwise DNAT over three."""
    results.peers.append(PeerResult("routed", "routed", rounds=[{"udp": 90_000.0}], backends=1))
    assert results.reference("routed") == "dnat"
    results.peers.append(PeerResult("dnat-1", "one", rounds=[{"udp": 45_000.0}], backends=1))
    assert results.reference("routed") == results.reference("dnat-1") == "dnat-1"
    assert results.reference("nat-netlink") == "dnat"
    assert results.ratio("routed", "udp") == 2.0


def test_the_reference_is_in_the_same_network(results: Results) -> None:
    """Direct return has a network of its own, and DNAT there a row of its own."""
    results.peers.append(PeerResult("dsr", "dsr", rounds=[{"udp": 90_000.0}], direct=True))
    assert results.reference("dsr") == "dnat"
    others = PeerResult("dnat-switched", "DNAT", rounds=[{"udp": 45_000.0}], direct=True)
    results.peers.append(others)
    assert results.reference("dsr") == results.reference("dnat-switched") == "dnat-switched"
    assert results.reference("nat-netlink") == "dnat"
    assert results.ratio("dsr", "udp") == 2.0


def test_documents_of_earlier_versions_are_read(results: Results) -> None:
    """They have neither numbers of backends nor CPU a unit, but the machine's time."""
    document = json.loads(results.to_json())
    del document["cpu"]
    for peer in document["peers"]:
        del peer["backends"]
        peer["rounds"] = [{"connections": 1.0, "machine_connections": 2.0}]
    jsonschema.validate(document, SCHEMA)
    earlier = Results.from_json(json.dumps(document))
    assert earlier.cpu == "machine"
    assert earlier.figure("dnat", "machine_connections") == 2.0
    assert not earlier.has("us_connection")


def test_growth_is_from_the_smallest_to_the_largest(results: Results) -> None:
    """A new flow at a million costs 1.25 times that at ten thousand."""
    assert results.core[0].growth() == pytest.approx(1.25)
    assert results.core[1].growth() is None


def test_the_document_gives_the_results_back(results: Results) -> None:
    """JSON and back gives equal results."""
    assert Results.from_json(results.to_json()) == results
    assert CoreResult.from_json(results.core[0].to_json()) == results.core[0]


def test_the_document_fits_the_schema(results: Results) -> None:
    """The document is valid by the schema, which has every metric."""
    jsonschema.validate(json.loads(results.to_json()), SCHEMA)
    assert set(SCHEMA["$defs"]["sample"]["properties"]) == set(METRICS)


def test_the_schema_refuses_a_metric_that_is_none(results: Results) -> None:
    """A misspelt metric does not pass."""
    results.peers[0].rounds.append({"conections": 1.0})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(results.to_json()), SCHEMA)


def test_another_format_is_refused(results: Results) -> None:
    """A document of another format is not misread."""
    document = {**json.loads(results.to_json()), "format": 2}
    with pytest.raises(ValueError, match="another format"):
        Results.from_json(json.dumps(document))


def test_the_records_fit_the_schema() -> None:
    """Every document that is kept in the repository fits the schema."""
    for file in (HERE / "results").glob("latest.json"):
        jsonschema.validate(json.loads(file.read_text(encoding="utf-8")), SCHEMA)
