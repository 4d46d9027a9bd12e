"""The system call filter that each process installs after it has dropped its privileges.

Lives here: ``ROLES`` (the calls of each role), ``program`` (the filter of a role as classic BPF),
``confine`` (installs it permanently for all threads) and ``forbid_rings``.
Rules: a role's list has the calls that it needs after start-up. Calls that only an attacker would
make (run a program, trace a process, mount, load code into the kernel) kill the process; all other
calls fail with EPERM. The numbers are for x86_64 (arch/x86/entry/syscalls/syscall_64.tbl) and
aarch64 (include/uapi/asm-generic/unistd.h); other machines have no filter. See seccomp(2) and
Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paraglider.bpf.syscall import ELEMENT_COMMANDS
from paraglider.errors import PlatformError
from paraglider.host.syscalls import NUMBERS

# linux/seccomp.h, linux/audit.h, linux/bpf_common.h
_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1
_KILL: Final = 0x8000_0000  # SECCOMP_RET_KILL_PROCESS
_ERRNO: Final = 0x0005_0000
_ALLOW: Final = 0x7FFF_0000
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_OF: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data; both machines are little endian
_X32: Final = 0x4000_0000
_CLONE_THREAD: Final = 0x0001_0000

#: AUDIT_ARCH of each machine, and its place in a row of ``NUMBERS``
MACHINES: Final = {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1)}

_INSTRUCTION: Final = struct.Struct("=HBBI")


def _calls(names: str) -> frozenset[str]:
    return frozenset(names.split())


#: calls of the interpreter: event loop, memory, clocks, open descriptors
_RUNTIME: Final = _calls(
    """
    read write readv writev pread64 pwrite64 close fstat newfstatat stat statx lseek
    mmap munmap mprotect mremap madvise msync brk ftruncate fallocate membarrier
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigpending sigaltstack tgkill
    restart_syscall futex sched_yield sched_getaffinity getcpu rseq set_robust_list
    get_robust_list nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time
    getpid gettid getppid getuid geteuid getgid getegid getresuid getresgid getrandom getrusage
    times sysinfo uname prlimit64 getcwd exit exit_group
    poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
    eventfd2 timerfd_create timerfd_settime pipe2 dup dup2 dup3 fcntl ioctl
    recvfrom recvmsg recvmmsg sendto sendmsg sendmmsg setsockopt getsockopt shutdown
    getsockname getpeername socketpair
    """
)
_CONNECTS: Final = _calls("connect bind")
_ACCEPTS: Final = _calls("accept accept4 listen")
_READS_FILES: Final = _calls(
    "openat open lstat readlink readlinkat access faccessat faccessat2 getdents64"
)

#: calls that only an attacker would make
_DANGEROUS: Final = _calls(
    """
    execve execveat ptrace process_vm_readv process_vm_writev pidfd_getfd
    mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount mount_setattr
    setns unshare name_to_handle_at open_by_handle_at
    init_module finit_module delete_module kexec_load kexec_file_load bpf perf_event_open
    userfaultfd keyctl add_key request_key
    reboot swapon swapoff acct quotactl syslog iopl ioperm personality
    settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname mknod mknodat
    """
)
#: calls that libraries replace by others on old kernels; their arguments are in memory, where a
#: filter cannot check them
_UNKNOWN: Final = _calls("clone3 io_uring_setup")


@dataclass(frozen=True, slots=True)
class Allowed:
    """The permissions of a role: ``calls`` by name, sockets of ``domains``, threads, and of bpf(2)
    the ``commands``.

    With ``programs`` the role runs other programs, which inherit the filter: all calls except the
    dangerous ones are allowed, and those fail instead of killing.
    """

    calls: frozenset[str] = _RUNTIME
    domains: tuple[int, ...] = ()
    threads: bool = False
    programs: bool = False
    commands: tuple[int, ...] = ()


_IP: Final = (int(socket.AF_INET), int(socket.AF_INET6))

ROLES: Final = {
    # connect: its sockets of tunnels ask for routes; those that it may make are of netlink.
    "worker": Allowed(_RUNTIME | _CONNECTS, (int(socket.AF_NETLINK),)),
    # A worker whose flows BPF carries: elements of the maps that it has inherited.
    "worker-bpf": Allowed(
        _RUNTIME | _CONNECTS, (int(socket.AF_NETLINK),), commands=ELEMENT_COMMANDS
    ),
    "conntrack counter": Allowed(_RUNTIME | {"bind"}, (int(socket.AF_NETLINK),)),
    "proxy worker": Allowed(_RUNTIME | _CONNECTS | _ACCEPTS, _IP),
    "monitor": Allowed(_RUNTIME | _CONNECTS | _READS_FILES, _IP, threads=True),
    "monitor-exec": Allowed(programs=True),
    "http": Allowed(_RUNTIME | _ACCEPTS),
    # A page that asks those of other balancers (`stats.peers`).
    "http-peers": Allowed(_RUNTIME | _ACCEPTS | _CONNECTS, _IP),
}


def program(allowed: Allowed, machine: str) -> bytes:
    """The filter of ``allowed`` for ``machine``, an array of struct sock_filter.

    The filter maps struct seccomp_data to an action. Raises KeyError for a machine not in MACHINES.
    """
    arch, column = MACHINES[machine]
    lines = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":  # the other table of this machine, under the same arch
        lines += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    refused, unknown = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    if allowed.programs:
        dangerous = _DANGEROUS - {"execve", "execveat"}
        lines += _each(dangerous, column, refused)
        return _assembled([*lines, (_RETURN, 0, 0, _ALLOW)])
    if allowed.commands:
        tests = [(_EQUAL, 0, 1, command) for command in allowed.commands]
        lines += _if("bpf", column, tests, _KILL)
    lines += _each(_DANGEROUS, column, _KILL)
    lines += _each(allowed.calls, column, _ALLOW)
    lines += _each(_UNKNOWN, column, unknown)
    tests = [(_EQUAL, 0, 1, domain) for domain in allowed.domains]
    lines += _if("socket", column, tests, refused)
    tests = [(_ANY_OF, 0, 1, _CLONE_THREAD)] if allowed.threads else []
    lines += _if("clone", column, tests, refused)
    return _assembled([*lines, (_RETURN, 0, 0, refused)])


_Line = tuple[int, int, int, int]


def _each(names: Iterable[str], column: int, action: int) -> Iterator[_Line]:
    """Instructions that return ``action`` for each of ``names`` that the machine has."""
    for number in sorted(n for name in names if (n := NUMBERS[name][column]) is not None):
        yield (_EQUAL, 0, 1, number)
        yield (_RETURN, 0, 0, action)


def _if(name: str, column: int, tests: list[_Line], otherwise: int) -> Iterator[_Line]:
    """Instructions that allow the call ``name`` if its first argument passes one of ``tests``."""
    number = NUMBERS[name][column]
    if number is None:
        return
    yield (_EQUAL, 0, 2 * len(tests) + 2, number)
    yield (_LOAD, 0, 0, _FIRST_ARGUMENT)
    for test in tests:
        yield test
        yield (_RETURN, 0, 0, _ALLOW)
    yield (_RETURN, 0, 0, otherwise)


def _assembled(lines: Iterable[_Line]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*line) for line in lines)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def confine(role: str) -> bool:
    """Install the filter of ``role``; False if the machine or kernel does not support filters.

    The process must have ``no_new_privs``. Raises ``PlatformError`` when the kernel refuses it.
    """
    return _install(program(ROLES[role], machine)) if (machine := _machine()) else False


def forbid_rings() -> None:
    """Make io_uring_setup fail with ENOSYS, because requests in a ring bypass every filter.

    For libraries that create rings before ``confine``. Raises as ``confine``.
    """
    if machine := _machine():
        arch, column = MACHINES[machine]
        lines = [
            (_LOAD, 0, 0, _ARCH),
            (_EQUAL, 1, 0, arch),
            (_RETURN, 0, 0, _ALLOW),
            (_LOAD, 0, 0, _NUMBER),
            *_each(["io_uring_setup"], column, _ERRNO | errno.ENOSYS),
            (_RETURN, 0, 0, _ALLOW),
        ]
        _install(_assembled(lines))


def _machine() -> str:
    """The machine's name in MACHINES; empty if it has no filter."""
    machine = platform.machine()
    return machine if machine in MACHINES and sys.maxsize > 1 << 32 else ""


def _install(text: bytes) -> bool:
    code = ctypes.create_string_buffer(text, len(text))
    fprog = _Program(len(text) // _INSTRUCTION.size, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    number = NUMBERS["seccomp"][MACHINES[platform.machine()][1]]
    if libc.syscall(number, _SET_MODE_FILTER, _TSYNC, ctypes.byref(fprog)) == 0:
        return True
    error = ctypes.get_errno()
    if error in (errno.ENOSYS, errno.EINVAL):  # a kernel without CONFIG_SECCOMP_FILTER
        return False
    raise PlatformError(f"cannot install the system call filter: {os.strerror(error)}")


def confined(pid: int) -> bool:
    """Whether the process ``pid`` has a filter, according to proc_pid_status(5)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "\nSeccomp:\t2\n" in status
