"""Privileges that are given up, read back from /proc/PID/status of a forked child."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import prctl
import pytest
from waiting import runs, wait_until

from paraglider.errors import PlatformError
from paraglider.host import privileges

pytestmark = pytest.mark.root

NET_ADMIN = 1 << 12  # capability.h
NOBODY = 65534
AMBIENT_RAISE = 47, 2  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE (linux/prctl.h)
LIBC = ctypes.CDLL(None)


def in_child(act: Callable[[], object]) -> str:
    """The result of ``act`` in a child process, or the traceback of its exception."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(act()).encode())
        except BaseException:  # noqa: BLE001 - the parent is to see whatever it is
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        result = pipe.read().decode()
    os.waitpid(child, 0)
    return result


def status(act: Callable[[], object]) -> dict[str, str]:
    """The lines of /proc/self/status after ``act``; it is opened before, as /proc may go."""

    def report() -> str:
        with Path("/proc/self/status").open() as lines:
            act()
            return lines.read()

    text = in_child(report)
    assert "Traceback" not in text, text
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def capabilities(of: dict[str, str], name: str) -> int:
    """A capability set as a number."""
    return int(of[name], 16)


def test_a_worker_keeps_net_admin_alone(tmp_path: Path) -> None:
    """User, group and groups are gone, one capability is left, and nothing brings more back."""
    found = status(lambda: privileges.drop(NOBODY, NOBODY, str(tmp_path)))
    assert found["Uid"].split() == [str(NOBODY)] * 4
    assert found["Gid"].split() == [str(NOBODY)] * 4
    assert found["Groups"].split() == []
    assert capabilities(found, "CapEff") == NET_ADMIN
    assert capabilities(found, "CapPrm") == NET_ADMIN
    assert capabilities(found, "CapInh") == 0
    assert capabilities(found, "CapBnd") == 0
    assert capabilities(found, "CapAmb") == 0
    assert found["NoNewPrivs"] == "1"


def test_inherited_capabilities_are_given_up() -> None:
    """Those of a user other than root, which its programs would inherit."""

    def inherit() -> None:
        prctl.set_keepcaps(True)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        for kind in (prctl.CAP_EFFECTIVE, prctl.CAP_INHERITABLE):
            prctl.set_caps((prctl.CAP_NET_ADMIN, kind, True))
        assert LIBC.prctl(*AMBIENT_RAISE, prctl.CAP_NET_ADMIN, 0, 0) == 0

    sets = ("CapEff", "CapPrm", "CapInh", "CapAmb")
    before = status(inherit)
    assert all(capabilities(before, name) & NET_ADMIN for name in sets)
    after = status(lambda: (inherit(), privileges.renounce()))
    assert [capabilities(after, name) for name in sets] == [0] * len(sets)
    assert after["NoNewPrivs"] == "1"


def test_a_worker_may_keep_nothing(tmp_path: Path) -> None:
    """A process that sends no verdicts has no capability."""
    found = status(lambda: privileges.drop(NOBODY, NOBODY, str(tmp_path), keep=()))
    for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
        assert capabilities(found, name) == 0
    assert found["Uid"].split() == [str(NOBODY)] * 4
    assert found["NoNewPrivs"] == "1"


def test_a_worker_is_locked_in(tmp_path: Path) -> None:
    """After it the root directory is the given one, and the process stands in it."""
    (tmp_path / "inside").touch()

    def look() -> list[str]:
        privileges.drop(NOBODY, NOBODY, str(tmp_path))
        return [str(path) for path in (*Path("/").iterdir(), *Path().iterdir())]

    tmp_path.chmod(0o755)
    assert in_child(look) == "['/inside', 'inside']"


def test_a_worker_cannot_become_root_again(tmp_path: Path) -> None:
    """Neither user id nor group id nor root directory can be restored."""

    def try_all() -> list[str]:
        privileges.drop(NOBODY, NOBODY, str(tmp_path))
        ways: list[Callable[[], object]] = [
            lambda: os.setuid(0),
            lambda: os.setgid(0),
            lambda: os.setgroups([0]),
            lambda: os.chroot("/"),
            lambda: setattr(prctl.cap_permitted, "sys_admin", True),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        ]
        refused = []
        for way in ways:
            try:
                way()
            except PermissionError:
                refused.append("refused")
            else:
                refused.append("granted")
        return refused

    assert in_child(try_all) == str(["refused"] * 6)


def test_the_parent_keeps_what_starting_and_stopping_needs() -> None:
    """Root stays root, with the listed capabilities and no others, in every set."""
    found = status(privileges.limit_parent)
    wanted = sum(1 << capability for capability in privileges.PARENT_CAPABILITIES)
    assert found["Uid"].split() == ["0"] * 4
    assert found["Groups"].split() == []
    assert [capabilities(found, name) for name in ("CapEff", "CapPrm", "CapBnd")] == [wanted] * 3
    assert capabilities(found, "CapInh") == 0
    assert found["NoNewPrivs"] == "1"


def test_a_worker_of_a_limited_parent(tmp_path: Path) -> None:
    """The parent's capabilities are enough for a worker to drop the rest."""

    def both() -> None:
        privileges.limit_parent()
        privileges.drop(NOBODY, NOBODY, str(tmp_path))

    found = status(both)
    assert found["Uid"].split() == [str(NOBODY)] * 4
    assert capabilities(found, "CapPrm") == NET_ADMIN


def test_a_refusal_is_the_platforms(tmp_path: Path) -> None:
    """A kernel that refuses a step gives one PlatformError, not a traceback of prctl."""

    def twice() -> str:
        privileges.drop(NOBODY, NOBODY, str(tmp_path))
        refusals = []
        for again in (
            lambda: privileges.drop(NOBODY, NOBODY, "/"),
            privileges.limit_parent,
        ):
            try:
                again()
            except PlatformError as error:
                refusals.append(str(error).partition(":")[0])
        return "|".join(refusals)

    message = "cannot drop privileges"
    assert in_child(twice) == f"{message}|{message}"


@pytest.mark.parametrize("early", [False, True], ids=["after", "before"])
def test_a_worker_ends_with_its_parent(tmp_path: Path, early: bool) -> None:
    """The worker ends when the parent dies, also if that happens before the request."""
    reading, writing = os.pipe()
    waiting, go = os.pipe()
    parent = os.fork()
    if parent == 0:
        here = os.getpid()
        if os.fork() == 0:
            privileges.drop(NOBODY, NOBODY, str(tmp_path))
            if not early:
                privileges.die_with_parent(here)
            os.write(writing, f"{os.getpid()}\n".encode())
            os.read(waiting, 1)
            if early:
                privileges.die_with_parent(here)
        signal.pause()
        os._exit(0)
    with os.fdopen(reading, "rb") as pipe:
        worker = int(pipe.readline())
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    if early:
        os.write(go, b"x")
    wait_until(lambda: not runs(worker))
    for descriptor in (writing, waiting, go):
        os.close(descriptor)


@pytest.mark.root
def test_what_is_called_ahead_has_no_rights(tmp_path: Path) -> None:
    """It can read the host's files, as the user and without a capability; afterwards the ids are as
    before.
    """
    tmp_path.chmod(0o755)
    seen: list[str] = []

    def ahead() -> None:
        seen.append(Path("/proc/self/status").read_text())
        seen.append(str(os.getresuid()))
        seen.append(str(Path("/proc").exists()))

    def act() -> str:
        privileges.drop(NOBODY, NOBODY, str(tmp_path), ahead=ahead)
        return "\n".join([*seen, str(Path("/proc").exists())])

    *lines, uids, before, after = in_child(act).splitlines()
    assert (uids, before, after) == (str((NOBODY,) * 3), "True", "False"), lines
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert capabilities(found, "CapEff") == capabilities(found, "CapBnd") == 0
    assert capabilities(found, "CapPrm") == NET_ADMIN | 1 << 18  # CAP_SYS_CHROOT
    assert found["NoNewPrivs"] == "1"

    def end() -> None:
        privileges.drop(NOBODY, NOBODY, str(tmp_path), ahead=lambda: None)

    left = status(end)
    assert capabilities(left, "CapEff") == capabilities(left, "CapPrm") == NET_ADMIN
