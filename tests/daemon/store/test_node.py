"""Whether the balancer is drained: over restarts, or until the daemon ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from paraglider.daemon.store.node import Node
from paraglider.host.node_file import NodeFile

Start = Callable[[float], Node]


@pytest.fixture
def file(tmp_path: Path) -> NodeFile:
    """The file of this host."""
    return NodeFile(tmp_path, 1)


@pytest.fixture
def start(file: NodeFile) -> Start:
    """A function that starts a daemon at a time, which it has for the present all the while."""
    return lambda at: Node(file, lambda: at)


def test_a_drain_holds_over_restarts(start: Start) -> None:
    """Since when it began first, until it is ended."""
    node = start(10.0)
    assert (node.state, node.since, node.kept) == ("ready", 10.0, True)
    node.drain(keep=True)
    assert (node.state, node.draining, node.kept) == ("drain", True, True)
    again = start(20.0)
    assert (again.state, again.since, again.kept) == ("drain", 10.0, True)
    again.drain(keep=True)
    assert again.since == 10.0
    again.ready()
    assert (again.state, again.since, again.kept) == ("ready", 20.0, True)
    assert start(30.0).state == "ready"


def test_a_drain_until_the_restart(start: Start) -> None:
    """The next daemon is ready, unless the operator has drained it before or after."""
    node = start(10.0)
    node.drain(keep=False)
    assert (node.state, node.kept) == ("drain", False)
    assert start(20.0).state == "ready"
    node.drain(keep=True)
    assert node.kept
    assert start(20.0).since == 10.0
    node.drain(keep=False)
    assert node.kept
    assert start(20.0).state == "drain"


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """The state holds until the daemon ends; the log says so."""
    (tmp_path / "file").touch()
    node = Node(NodeFile(tmp_path / "file" / "run", 1), lambda: 10.0)
    with structlog.testing.capture_logs() as logs:
        node.drain(keep=True)
    assert (node.state, node.kept) == ("drain", False)
    assert [(line["event"], line.get("why")) for line in logs] == [
        ("balancer drained", None),
        ("state of the balancer not written", "Not a directory"),
    ]
    node.ready()
    assert (node.state, node.kept) == ("ready", False)


def test_what_is_logged(start: Start) -> None:
    """Each change once; a daemon that begins drained says so, since no client may come to it."""
    with structlog.testing.capture_logs() as logs:
        node = start(10.0)
        node.ready()
        node.drain(keep=True)
        node.drain(keep=True)
        start(20.0).ready()
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("info", "balancer drained"),
        ("warning", "balancer is drained, not to be announced"),
        ("info", "balancer ready again"),
    ]


def test_without_a_file() -> None:
    """Nothing is kept but that it is ready."""
    node = Node(clock=lambda: 5.0)
    node.drain(keep=True)
    assert not node.kept
    node.ready()
    assert node.kept
