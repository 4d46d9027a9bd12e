"""The processes for the controller: selection by role, messages, replacement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, cast

import pytest

from paraglider.daemon.controller.processes import Processes
from paraglider.daemon.ipc import MOST_REQUESTS, Broadcasts, Kind
from paraglider.daemon.messages import (
    TO_ROLE,
    Acknowledged,
    LoadRules,
    Message,
    SetCarrier,
    SuspendPolicies,
)
from paraglider.daemon.monitor.process import MonitorSpec
from paraglider.daemon.processes.child import Child
from paraglider.daemon.processes.manager import ProcessManager
from paraglider.daemon.processes.spec import Spec


class _Worker(Spec):
    role: ClassVar[str] = "worker"


class _Proxy(Spec):
    role: ClassVar[str] = "proxy worker"


class _Tracker(Spec):
    role: ClassVar[str] = "conntrack counter"


class _Helper(Spec):
    role: ClassVar[str] = "host helper"


class Manager:
    """One process of each role, and the calls for them."""

    def __init__(self, *, discovers: bool = False) -> None:
        self.children = [
            Child(_Worker(0), pid=10),
            Child(_Worker(1), pid=11),
            Child(_Proxy(2), pid=12),
            Child(_Tracker(3), pid=13),
            Child(_Helper(4), pid=14),
            Child(MonitorSpec(5, None, 1, 1, "/", discovers=discovers, idle=not discovers)),
        ]
        self.done: list[Any] = []

    def __iter__(self) -> Iterator[Child]:
        return iter(self.children)

    def send(
        self, child: Child, message: Message | bytes, kind: Kind = Kind.MESSAGE, number: int = 0
    ) -> None:
        """See ``ProcessManager``."""
        if isinstance(message, bytes):
            message = TO_ROLE[child.spec.role].validate_json(message)
        self.done.append((child.spec.index, message, kind, number))

    def restart(self, child: Child) -> None:
        """See ``ProcessManager``."""
        child.dismissed = 1.0
        self.done.append(child.spec.index)

    def wake(self, child: Child) -> None:
        """See ``ProcessManager``."""
        child.spec = replace(child.spec, idle=False)
        self.done.append(f"wake {child.spec.index}")


def attached(manager: Manager) -> Processes:
    """The processes of ``manager``."""
    processes = Processes()
    processes.attach(cast(ProcessManager, manager))
    return processes


def test_before_there_are_any() -> None:
    """No process is ready, and messages are dropped."""
    processes = Processes()
    assert (list(processes), processes.carriers(), processes.discovering()) == ([], [], [])
    assert (processes.host_helper(), processes.monitor()) == (None, None)
    processes.send(0, SuspendPolicies(services=()))
    processes.send_to_carriers(SuspendPolicies(services=()))
    processes.replace_roles({"worker"})
    processes.wake_monitor()


def test_processes_that_carry_flows() -> None:
    """Workers and proxy workers, as far as they serve."""
    manager = Manager()
    processes = attached(manager)
    assert processes.carriers() == [0, 1, 2]
    manager.children[0].pid = 0
    manager.children[1].report = 5
    assert processes.carriers() == [2]


def test_the_one_of_a_role() -> None:
    """None while it is not ready."""
    manager = Manager(discovers=True)
    processes = attached(manager)
    helper, monitor = manager.children[4:]
    assert processes.host_helper() == 4
    assert processes.monitor() is None
    monitor.pid = 15
    helper.hung = True
    assert processes.monitor() is monitor
    assert processes.host_helper() is None


@pytest.mark.parametrize("discovers", [False, True])
def test_roles(discovers: bool) -> None:
    """Those that are not idle, and discovery; the conntrack counter only if it follows events."""
    processes = attached(Manager(discovers=discovers))
    carrying = {"worker", "proxy worker", "host helper"}
    monitoring = {"monitor", "discovery"} if discovers else set()
    assert processes.roles(counting=False) == carrying | monitoring
    assert processes.roles(counting=True) == carrying | monitoring | {"conntrack counter"}
    assert processes.discovering() == ([5] if discovers else [])


def test_what_is_sent() -> None:
    """To one, as a request to one, and to all with flows."""
    manager, message = Manager(), SuspendPolicies(services=("web",))
    processes = attached(manager)
    processes.send(1, message)
    processes.request(4, LoadRules(text="x"), 9)
    assert manager.done == [
        (1, message, Kind.MESSAGE, 0),
        (4, LoadRules(text="x"), Kind.REQUEST, 9),
    ]
    manager.done.clear()
    processes.send_to_carriers(message)
    assert manager.done == [(index, message, Kind.MESSAGE, 0) for index in (0, 1, 2)]


def test_carriers_are_asked_also_while_they_start() -> None:
    """One that is gone or hangs is not waited for. With too many requests, none is."""
    manager, message, ended = Manager(), SetCarrier(on=True), list[int]()
    processes = attached(manager)
    gone, starting, _ = manager.children[:3]
    gone.pid, starting.report = 0, 5
    requests = Broadcasts(processes.request)
    processes.ask_carriers(requests, message, lambda: ended.append(1))
    assert manager.done == [(index, message, Kind.REQUEST, 1) for index in (1, 2)]
    requests.on_answer(2, 1, Acknowledged())
    assert ended == []
    requests.on_answer(1, 1, Acknowledged())
    assert ended == [1]
    manager.done.clear()
    while len(manager.done) < 2 * MOST_REQUESTS:
        processes.ask_carriers(requests, message, lambda: ended.append(2))
    assert ended == [1]
    manager.done.clear()
    processes.ask_carriers(requests, message, lambda: ended.append(3))
    assert manager.done == [(index, message, Kind.MESSAGE, 0) for index in (0, 1, 2)]
    assert ended == [1, 3]


def test_roles_are_replaced_one_at_a_time() -> None:
    """The next one ends when the one before is ready; an idle one is not restarted."""
    manager = Manager()
    processes = attached(manager)
    processes.replace_roles({"worker", "monitor"})
    processes.continue_restart()
    assert manager.done == [0]
    manager.children[0].dismissed = 0.0
    processes.continue_restart()
    assert manager.done == [0, 1]
    manager.children[1].dismissed = 0.0
    processes.continue_restart()
    assert manager.done == [0, 1]


def test_the_monitor_is_woken_once() -> None:
    """From then on it is active."""
    manager = Manager()
    processes = attached(manager)
    assert 5 not in [child.spec.index for child in processes.active()]
    processes.wake_monitor()
    processes.wake_monitor()
    assert manager.done == ["wake 5"]
    assert 5 in [child.spec.index for child in processes.active()]
