"""The system call filters: the calls that each allows, by an interpreter and by the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import prctl
import pytest
import uvloop
from waiting import TIMEOUT

from paraglider.bpf.layout import RING_BYTES, TRANSLATION
from paraglider.bpf.maps import CarrierMaps, create_ring
from paraglider.bpf.ring import open_ring
from paraglider.daemon import process_specs
from paraglider.daemon.processes.spec import Spec
from paraglider.errors import PlatformError
from paraglider.host import seccomp
from paraglider.host.seccomp import MACHINES, ROLES, confine, confined, program
from paraglider.host.syscalls import NUMBERS

KILL, ALLOW = "kill", "allow"
CLONE_THREAD, SIGCHLD = 0x10000, 17
native = pytest.mark.skipif(platform.machine() not in MACHINES, reason="no filter on this machine")


def judged(code: bytes, arch: int, number: int, argument: int = 0) -> str | int:
    """The result of the filter ``code`` for a call: ALLOW, KILL or an error number.

    Implements the instructions of classic BPF (Documentation/networking/filter.rst) that filters
    use.
    """
    data = struct.pack("=IIQ6Q", number, arch, 0, argument, 0, 0, 0, 0, 0)
    lines = list(struct.iter_unpack("=HBBI", code))
    accumulator, at = 0, 0
    while True:
        operation, yes, no, value = lines[at]
        at += 1
        if operation == 0x06:
            action, detail = value & 0xFFFF0000, value & 0xFFFF
            return {0x80000000: KILL, 0x7FFF0000: ALLOW}.get(action, detail)
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        else:
            holds = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]
            at += yes if holds else no


def verdicts(role: str, machine: str, argument: int = 0) -> dict[str, str | int]:
    """The result of the filter of ``role`` for every call that has a name here."""
    arch, column = MACHINES[machine]
    code = program(ROLES[role], machine)
    numbers = {name: row[column] for name, row in NUMBERS.items()}
    return {
        name: judged(code, arch, number, argument)
        for name, number in numbers.items()
        if number is not None
    }


roles = pytest.mark.parametrize("role", ROLES)
machines = pytest.mark.parametrize("machine", MACHINES)


@roles
@machines
def test_no_role_gets_what_an_attacker_wants(role: str, machine: str) -> None:
    """Such calls kill the process; a role that runs programs may start them, and gets EPERM for the
    rest.
    """
    said = verdicts(role, machine)
    programs, commands = ROLES[role].programs, ROLES[role].commands
    for name in seccomp._DANGEROUS & said.keys():
        if name == "bpf" and commands:
            continue
        if programs:
            assert said[name] == (ALLOW if name.startswith("execve") else errno.EPERM), name
        else:
            assert said[name] == KILL, name


@roles
@machines
def test_every_role_gets_its_calls_and_no_other(role: str, machine: str) -> None:
    """Listed calls pass, others fail with EPERM."""
    allowed, said = ROLES[role], verdicts(role, machine)
    if allowed.programs:
        return
    special = seccomp._DANGEROUS | {"socket", "clone", "clone3", "io_uring_setup"}
    for name in said.keys() - special:
        assert said[name] == (ALLOW if name in allowed.calls else errno.EPERM), name
    assert {said[name] for name in ("clone3", "io_uring_setup")} == {errno.ENOSYS}


@roles
@machines
@pytest.mark.parametrize(
    "domain", [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, 17, 38]
)
def test_sockets_are_of_the_roles_families(role: str, machine: str, domain: int) -> None:
    """A worker can only open netlink, a proxy IP, http no sockets; none can open packet sockets."""
    allowed = ROLES[role]
    ours = allowed.programs or domain in allowed.domains
    assert verdicts(role, machine, domain)["socket"] == (ALLOW if ours else errno.EPERM)


@roles
@machines
def test_bpf_is_for_elements_of_maps(role: str, machine: str) -> None:
    """A worker with a carrier reads, adds and removes elements; whoever makes maps, loads, pins or
    attaches is killed.
    """
    allowed = ROLES[role]
    for command in range(40):
        said = verdicts(role, machine, command)["bpf"]
        if allowed.programs:
            assert said == errno.EPERM
        else:
            assert said == (ALLOW if command in allowed.commands else KILL)
    assert set(allowed.commands) in (set(), {1, 2, 3, 24, 27})


@roles
@machines
def test_processes_are_not_forked(role: str, machine: str) -> None:
    """Threads where a library has them; a new process only for programs."""
    allowed = ROLES[role]
    fork = verdicts(role, machine, SIGCHLD)["clone"]
    assert fork == (ALLOW if allowed.programs else errno.EPERM)
    thread = verdicts(role, machine, CLONE_THREAD | 0xF00)["clone"]
    assert thread == (ALLOW if allowed.programs or allowed.threads else errno.EPERM)


@roles
@machines
def test_other_tables_of_the_machine_are_no_way_around(role: str, machine: str) -> None:
    """32-bit calls, and x32's on x86_64, kill with any number."""
    code = program(ROLES[role], machine)
    arch, _ = MACHINES[machine]
    for other in {0x40000003, 0x40000028, *(arch for arch, _ in MACHINES.values())} - {arch}:
        assert judged(code, other, 0) == KILL
    if machine == "x86_64":
        assert judged(code, arch, 0x40000000) == KILL
        assert judged(code, arch, 0x40000000 + 59) == KILL


@roles
@machines
def test_a_filter_is_one_that_the_kernel_takes(role: str, machine: str) -> None:
    """No jump leaves it, its last line returns, and it has fewer than BPF_MAXINSNS lines."""
    lines = list(struct.iter_unpack("=HBBI", program(ROLES[role], machine)))
    assert len(lines) < 4096
    assert lines[-1][0] == 0x06
    for at, (operation, yes, no, _) in enumerate(lines):
        if operation in (0x15, 0x35, 0x45):
            assert max(yes, no) + at + 1 < len(lines)


def child(what: Callable[[], None]) -> int:
    """The wait status of a process that does ``what``; 3 as exit code when it raises."""
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            what()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def locked(role: str) -> None:
    """Be a process with the filter of ``role``."""
    prctl.set_no_new_privs(1)
    assert confine(role)


def refused(call: Callable[[], object]) -> None:
    """``call`` must fail with EPERM."""
    with pytest.raises(PermissionError) as caught:
        call()
    assert caught.value.errno == errno.EPERM


@native
@pytest.mark.parametrize("role", [role for role in ROLES if not ROLES[role].programs])
def test_starting_a_program_is_killed(role: str) -> None:
    """By SIGSYS, before the program runs."""

    def attack() -> None:
        locked(role)
        os.execv("/bin/true", ["true"])

    assert os.WTERMSIG(child(attack)) == signal.SIGSYS


@native
def test_the_kernel_refuses_a_worker_what_it_does_not_need() -> None:
    """Files, other families of sockets, processes, signals to others; its own work goes on."""

    def work() -> None:
        locked("worker")
        refused(lambda: Path("/etc/passwd").read_bytes())
        refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        refused(os.fork)
        refused(lambda: os.kill(os.getppid(), 0))
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12).close()
        one, other = socket.socketpair()
        one.send(b"x" * 100000)
        assert len(other.recv(1 << 20)) > 0
        assert len(bytearray(50 << 20)) == 50 << 20

    assert child(work) == 0


@native
@pytest.mark.root
def test_a_worker_with_a_carrier_uses_maps_and_makes_none() -> None:
    """Every operation on inherited maps and rings passes, without a capability; a new map kills."""
    maps = CarrierMaps.create_for_test(flows=64)

    def work() -> None:
        os.setgid(65534)
        os.setuid(65534)
        locked("worker-bpf")
        key, value = b"k" * 12, b"v" * 24
        flows = maps.flows[6, 4]
        assert flows.insert(key, value) == 0
        assert flows.get(key) == value
        assert list(flows.dump()) == [(key, value, 1)]
        assert flows.delete(key)
        maps.translations.put(bytes(4), bytes(TRANSLATION.size))
        assert maps.reasons.total(0) == (0,)
        assert open_ring(maps.rings[0], RING_BYTES).read(1) == []

    def attack() -> None:
        locked("worker-bpf")
        create_ring()

    assert child(work) == 0
    assert os.WTERMSIG(child(attack)) == signal.SIGSYS
    maps.close()


@native
def test_a_thread_that_is_there_already_has_it_too() -> None:
    """If threads are allowed, new ones can be created too."""

    def work() -> None:
        go, found = threading.Event(), []

        def other() -> None:
            go.wait(30)
            try:
                os.open("/etc/passwd", os.O_RDONLY)
            except PermissionError:
                found.append("refused")

        thread = threading.Thread(target=other)
        thread.start()
        locked("proxy worker")
        go.set()
        thread.join(TIMEOUT)
        assert found == ["refused"]
        try:
            threading.Thread(target=print).start()
        except RuntimeError:
            found.append("no thread")
        assert found == ["refused", "no thread"]

    def monitor() -> None:
        locked("monitor")
        made: list[int] = []
        thread = threading.Thread(target=made.append, args=(1,))
        thread.start()
        thread.join(TIMEOUT)
        assert made == [1]

    assert (child(work), child(monitor)) == (0, 0)


@native
def test_no_ring_is_made_ahead_of_the_filter() -> None:
    """io_uring is refused, and libuv's loop works without it, also filtered."""

    def work() -> None:
        seccomp.forbid_rings()
        loop = uvloop.new_event_loop()
        held = list(Path("/proc/self/fd").iterdir())
        assert not [fd for fd in held if fd.is_symlink() and "io_uring" in str(fd.readlink())]
        locked("proxy worker")
        one, other = socket.socketpair()
        loop.add_reader(one.fileno(), loop.stop)
        other.send(b"!")
        loop.run_forever()
        assert one.recv(1) == b"!"

    assert child(work) == 0


@native
def test_programs_of_checks_run_and_are_filtered() -> None:
    """A check's program starts others, and can neither mount nor trace."""

    def check() -> None:
        locked("monitor-exec")
        script = "import ctypes; c = ctypes.CDLL(None, use_errno=True)"
        script += "; r = c.mount(b'none', b'/', b'tmpfs', 0, None), ctypes.get_errno()"
        script += "; import subprocess; subprocess.run(['/bin/true'], check=True); print(r)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
        assert done.stdout == b"(-1, %d)\n" % errno.EPERM

    assert child(check) == 0


@native
def test_without_no_new_privs_an_unprivileged_process_gets_an_error() -> None:
    """The kernel's refusal is a PlatformError, not a process without a filter."""

    def work() -> None:
        os.setgid(65534)
        os.setuid(65534)
        with pytest.raises(PlatformError, match="system call filter"):
            confine("http")

    if os.geteuid() != 0:
        pytest.skip("root may install filters without it, and becomes nobody here")
    assert child(work) == 0


def test_elsewhere_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an unknown machine no filter is installed, and the result says so."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not confine("worker")


@native
def test_the_filter_mode_in_proc() -> None:
    """By /proc, for another process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            locked("http")
            os.write(writing, b"!")
            signal.sigtimedwait([signal.SIGUSR1], 60)
        finally:
            os._exit(0)
    assert os.read(reading, 1) == b"!"
    assert confined(pid)
    assert not confined(os.getpid())
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not confined(pid)
    for end in (reading, writing):
        os.close(end)


def test_the_structure_is_the_kernels() -> None:
    """struct sock_fprog: a length, and after its padding a pointer."""
    assert ctypes.sizeof(seccomp._Program) == 16
    assert seccomp._Program.filter.offset == 8


def test_every_role_of_a_process_has_a_filter() -> None:
    """No filter exists without a process of its role. The host helper runs programs as root; a
    filter that allows that would not restrict it.
    """
    # Tests define roles too; process_specs imports every module of the package that defines one.
    place = process_specs.__name__.removesuffix("process_specs")
    roles = {spec.role for spec in Spec.__subclasses__() if spec.__module__.startswith(place)}
    assert roles - {"host helper"} | {"monitor-exec", "worker-bpf", "http-peers"} == set(ROLES)
    assert "host helper" in roles
