"""A namespace runs programs, and takes them with it when it goes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from waiting import wait_until

from paraglider.errors import OperatorError, PlatformError
from paraglider.lab import namespace
from paraglider.lab.namespace import Namespace, execute
from paraglider.lab.removal import notes
from paraglider.lab.topology import new_prefix


@pytest.fixture
def inside() -> Iterator[Namespace]:
    """A namespace of this test's."""
    with Namespace(f"{new_prefix()}-test") as made:
        yield made


def dead_pid() -> int:
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def running(pid: int) -> bool:
    """True when the process runs; one that has ended and waits to be collected does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_execute_gives_output() -> None:
    """The output of a program is returned, and its standard input is the given one."""
    assert execute(["cat"], text="hello").stdout == "hello"


def test_a_failure_has_its_output() -> None:
    """The error has the program, the exit code and its output."""
    script = "import sys; print('oh no', file=sys.stderr); sys.exit(3)"
    with pytest.raises(PlatformError, match=r"import sys.*: exit 3: oh no"):
        execute([sys.executable, "-c", script])


def test_execute_without_check_returns_the_failure() -> None:
    """Without the check the exit code is returned."""
    assert execute(["false"], check=False).returncode == 1


def test_execute_names_a_missing_program() -> None:
    """A program that is not installed is the operator's to install."""
    with pytest.raises(OperatorError, match="no-such-program is missing; run scripts/bootstrap"):
        execute(["no-such-program"])


def test_execute_ends_what_takes_too_long() -> None:
    """A program that takes too long is killed, with an error."""
    with pytest.raises(PlatformError, match=r"sleep 60: no end after 0\.1 s"):
        execute(["sleep", "60"], timeout=0.1)


def test_alive() -> None:
    """This process lives; one that has ended does not."""
    assert namespace.alive(os.getpid())
    assert not namespace.alive(dead_pid())


@pytest.mark.root
def test_a_namespace_is_a_network_of_its_own(inside: Namespace) -> None:
    """It only has loopback, which is up."""
    links = inside.run(["ip", "-o", "link"]).stdout.splitlines()
    assert len(links) == 1
    assert "LOOPBACK,UP" in links[0]


@pytest.mark.root
def test_programs_keep_their_process_id(inside: Namespace) -> None:
    """The id of a started program is that of the program itself, so signals reach it."""
    process = inside.popen(["sleep", "60"])
    assert wait_until(inside.pids) == [process.pid]


@pytest.mark.root
def test_close_ends_even_the_deaf() -> None:
    """Closing ends a program that ignores SIGTERM, and its children, and removes the name."""
    made = Namespace(f"{new_prefix()}-deaf")
    script = "trap '' TERM; sleep 60 & echo deaf; wait; sleep 60"
    process = made.popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    pids = made.pids()
    assert len(pids) == 2
    made.close()
    made.close()
    assert made.name not in namespace.names()
    assert not [pid for pid in pids if running(pid)]


@pytest.mark.root
def test_close_ends_what_is_not_in_here_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ip netns exec` enters the namespace some time after its start."""
    made = Namespace(f"{new_prefix()}-early")
    monkeypatch.setattr(Namespace, "command", lambda _, arguments: list(arguments))
    process = made.popen(["sleep", "60"])
    made.close()
    assert process.poll() == -signal.SIGTERM


@pytest.mark.root
def test_ip_reports_a_line_that_fails(inside: Namespace) -> None:
    """The error names the invalid line of a batch."""
    with pytest.raises(PlatformError, match="no-such-link"):
        inside.ip("link set no-such-link up")


@pytest.mark.root
def test_a_variable_that_the_kernel_refuses_is_named(inside: Namespace) -> None:
    """The error has the variable and the kernel's reason."""
    inside.sysctl("net.ipv4.ip_local_port_range=10000 65000")
    command = ["sysctl", "-n", "net.ipv4.ip_local_port_range"]
    assert inside.run(command).stdout.split() == ["10000", "65000"]
    with pytest.raises(PlatformError, match=r"ip_forward=none: Invalid argument"):
        inside.sysctl("net.ipv4.ip_forward=none")
    with pytest.raises(PlatformError, match=r"no_such=1: No such file"):
        inside.sysctl("net.ipv4.no_such=1")
    inside.sysctl("net.ipv4.no_such=1", "net.ipv4.ip_forward=1", missing_ok=True)
    assert inside.run(["sysctl", "-n", "net.ipv4.ip_forward"]).stdout == "1\n"


@pytest.mark.root
def test_several_are_created_and_closed_together() -> None:
    """Each is as one that is created alone; a name that exists leaves nothing of the others."""
    prefix = new_prefix()
    wanted = [f"{prefix}-one", f"{prefix}-two"]
    made = namespace.create(wanted)
    links = [one.run(["ip", "-o", "link"]).stdout for one in made]
    assert ["LOOPBACK,UP" in each for each in links] == [True, True]
    processes = [one.popen(["sleep", "60"]) for one in made]
    # They are not there until `ip` has entered it.
    wait_until(lambda: [one.pids() for one in made] == [[process.pid] for process in processes])
    namespace.close(*made)
    assert [process.poll() for process in processes] == [-signal.SIGTERM] * 2
    with Namespace(f"{prefix}-three") as other:
        with pytest.raises(PlatformError, match="File exists"):
            namespace.create([*wanted, other.name])
        assert [name for name in namespace.names() if name.startswith(f"{prefix}-")] == [other.name]


@pytest.mark.root
def test_entered_is_this_thread_alone(inside: Namespace) -> None:
    """Its sockets are of the namespace; another thread, and this one afterwards, are elsewhere."""

    def links() -> list[str]:
        return [name for _, name in socket.if_nameindex()]

    inside.ip("link add one type veth peer name two")
    with ThreadPoolExecutor() as pool, pytest.raises(ValueError, match="over"):  # noqa: PT012
        pool.submit(links).result()
        with inside.entered():
            assert "one" in links()
            assert "one" not in pool.submit(links).result()
            raise ValueError("over")
    assert "one" not in links()


@pytest.mark.root
def test_stale_removes_what_the_dead_left_and_nothing_else(inside: Namespace) -> None:
    """Leftovers of dead creators are removed, kept ones and those of running creators stay."""
    prefix = f"pg{dead_pid()}"
    with Namespace(f"{prefix}-left") as left, Namespace(f"{prefix}.1-kept") as kept:
        others = [note["prefix"] for note in notes().values()]  # labs that other tests keep up
        removed = namespace.stale(keep=[f"{prefix}.1", *others])
        assert left.name in removed
        assert left.name not in namespace.names()
        assert {kept.name, inside.name} <= set(namespace.names())


@pytest.mark.root
def test_remove_all_takes_one_prefix_alone(inside: Namespace) -> None:
    """A prefix that begins like another one's does not take the other one's namespaces."""
    prefix = inside.name.rpartition("-")[0]
    with Namespace(f"{prefix}0-other") as other:
        namespace.remove_all(prefix)
        assert inside.name not in namespace.names()
        assert other.name in namespace.names()


@pytest.mark.root
def test_ipv6_addresses_are_usable_when_ip_returns(inside: Namespace) -> None:
    """Looking for duplicates, which takes a second, stands for a kernel that is late otherwise."""
    inside.ip("link add one type veth peer name two", "link set two up", "link set one up")
    inside.sysctl("net.ipv6.conf.all.accept_dad=1", "net.ipv6.conf.one.accept_dad=1")
    inside.ip("address add 2001:db8::1/64 dev one")
    inside.run(["ping", "-c1", "-I", "2001:db8::1", "2001:db8::1"])


@pytest.mark.root
def test_an_address_of_a_link_without_its_peer_is_not_waited_for(inside: Namespace) -> None:
    """It stays tentative until the peer is up."""
    inside.ip("link add eth0 type veth peer name eth1", "address add 2001:db8::1/64 dev eth0")
    inside.ip("link set eth0 up")


@pytest.mark.root
def test_an_address_that_never_gets_a_route_is_named(
    inside: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With duplicate address detection it would be tentative for a second or more."""
    monkeypatch.setattr(namespace, "ROUTED", 0.0)
    monkeypatch.setattr(Namespace, "_unrouted", lambda _: {"20010db8" + "0" * 23 + "1"})
    with pytest.raises(PlatformError, match="no local route to 20010db8"):
        inside.ip("address add 2001:db8::1/64 dev lo")
