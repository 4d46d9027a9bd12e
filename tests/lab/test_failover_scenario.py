"""The failover scenario's configuration and refusals; ``tests/net/test_lab.py`` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from paraglider.config.load import load
from paraglider.errors import OperatorError
from paraglider.lab.failover_scenario import FORWARDS, FailoverLab, failover_configuration
from paraglider.lab.scenario import LabOptions, configuration


@pytest.mark.parametrize("forward", FORWARDS)
def test_the_configuration_is_valid(tmp_path: Path, forward: str) -> None:
    """HTTP over both families, checked; failover is left to the option `-f`, and is quick."""
    file = tmp_path / "paraglider.conf"
    text = configuration(LabOptions(forward), tmp_path, frozenset({0}))
    file.write_text(failover_configuration(text))
    config = load(file)
    assert [(s.name, s.forward) for s in config.services] == [("web4", forward), ("web6", forward)]
    assert all(service.check is not None for service in config.services)
    assert (config.failover.enabled, config.failover.discover) == (False, True)


@pytest.mark.parametrize("forward", ["dsr", "proxy", "static"])
def test_other_forwards_are_refused(forward: str) -> None:
    """Before anything is created, with the methods that are supported."""
    with pytest.raises(OperatorError, match="nat or offload"):
        FailoverLab(LabOptions(forward, failover=True), Console())


def test_one_backend_is_too_few() -> None:
    """No backend would be left when it is killed."""
    with pytest.raises(OperatorError, match="at least two backends"):
        FailoverLab(LabOptions(backends=1, failover=True), Console())
