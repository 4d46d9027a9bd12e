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
    """One bad round does not move the figure."""
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


def test_growth_is_from_the_smallest_to_the_largest(results: Results) -> None:
    """A new flow at a million costs 1.25 times that at ten thousand."""
    assert results.core[0].growth() == pytest.approx(1.25)
    assert results.core[1].growth() is None


def test_the_document_gives_the_results_back(results: Results) -> None:
    """Nothing is lost on the way to JSON and back."""
    assert Results.from_json(results.to_json()) == results
    assert CoreResult.from_json(results.core[0].to_json()) == results.core[0]


def test_the_document_is_as_the_schema_says(results: Results) -> None:
    """What is written fits the schema, which knows every metric."""
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


def test_the_record_is_as_the_schema_says() -> None:
    """Every document that is kept in the repository fits the schema."""
    for file in (HERE / "results").glob("latest.json"):
        jsonschema.validate(json.loads(file.read_text(encoding="utf-8")), SCHEMA)
