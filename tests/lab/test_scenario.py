"""The lab's configuration; ``tests/net/test_lab.py`` runs the scenario."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from paraglider.config.load import load
from paraglider.errors import OperatorError
from paraglider.lab import direct, scenario
from paraglider.lab.scenario import LabOptions, configuration, neighbouring_cores

CORES = frozenset({0, 1, 4, 5, 6})


@pytest.mark.parametrize(
    ("wanted", "cores"), [(1, (0, 0)), (2, (0, 1)), (3, (4, 6))], ids=["one", "two", "three"]
)
def test_cores_are_neighbours(wanted: int, cores: tuple[int, int]) -> None:
    """The first run of neighbouring cores that is long enough is taken."""
    assert neighbouring_cores(wanted, CORES) == cores


def test_too_many_workers_are_refused() -> None:
    """More workers than neighbouring cores is the operator's mistake, and the cores are named."""
    with pytest.raises(OperatorError, match=r"4 workers .* 0, 1, 4, 5, 6; .*--workers"):
        neighbouring_cores(4, CORES)


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    """The loader accepts the lab's file: three services a family over all backends."""
    file = tmp_path / "paraglider.conf"
    file.write_text(configuration(LabOptions(workers=2, backends=5), tmp_path, CORES))
    config = load(file)
    assert (config.workers.first_core, config.workers.last_core) == (0, 1)
    assert [service.name for service in config.services] == [
        "web4", "echo4", "all4", "web6", "echo6", "all6",
    ]  # fmt: skip
    assert all(len(service.backends) == 5 for service in config.services)
    assert config.chroot == str(tmp_path / "empty")


def test_a_proxy_carries_tcp_alone(tmp_path: Path) -> None:
    """With `--forward proxy` there is one service per family, and the file is valid."""
    file = tmp_path / "paraglider.conf"
    file.write_text(configuration(LabOptions("proxy"), tmp_path, CORES))
    found = [(s.name, s.protocol, s.forward) for s in load(file).services]
    assert found == [("web4", "tcp", "proxy"), ("web6", "tcp", "proxy")]


@pytest.mark.parametrize("forward", ["dsr", "tunnel"])
def test_direct_returns_have_all_three_protocols(tmp_path: Path, forward: str) -> None:
    """The file is valid, and backends need a set-up; those of tunnels are no neighbours."""
    file = tmp_path / "paraglider.conf"
    file.write_text(configuration(LabOptions(forward), tmp_path, CORES))
    assert (load(file).network.private is None) == (forward == "tunnel")
    assert {service.protocol for service in load(file).services} == {"tcp", "udp", "any"}
    assert direct.needed(file)
    file.write_text(configuration(LabOptions("offload"), tmp_path, CORES))
    assert not direct.needed(file)


def test_the_carrier_of_the_services(tmp_path: Path) -> None:
    """It is in the file if it is given, and only methods that have several take it."""
    file = tmp_path / "paraglider.conf"
    for carrier in ("bpf", "xdp", "worker"):
        file.write_text(configuration(LabOptions(carrier=carrier), tmp_path, CORES))
        assert {service.carrier for service in load(file).services} == {carrier}
    assert "carrier:" not in configuration(LabOptions(), tmp_path, CORES)
    for forward in ("offload", "static"):
        with pytest.raises(
            OperatorError, match=r"--carrier has no meaning .* --forward nat or dsr"
        ):
            scenario.Lab(LabOptions(forward, carrier="bpf"), Console())
    with pytest.raises(OperatorError, match="--forward tunnel is carried at tc, not at XDP"):
        scenario.Lab(LabOptions("tunnel", carrier="xdp"), Console())
