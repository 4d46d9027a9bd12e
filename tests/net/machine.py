"""A disposable machine: this host's files under an overlay, with its own systemd as process 1.

It is in a network namespace of a topology, so its services meet real packets. Changes of files are
in memory and discarded; it has its own processes, mounts, host name, /run and control groups, and
no units except those that are installed in it.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from waiting import wait_until

from paraglider.lab.namespace import Namespace

#: what units of a usual machine refer to
STUBS = (
    "basic.target",
    "multi-user.target",
    "network-online.target",
    "shutdown.target",
    "sysinit.target",
)

# The argument: where to build it.
BOOT = r"""
set -e
base=$1
mount --make-rprivate /
mount -t tmpfs tmpfs "$base"
cd "$base"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
for place in run tmp dev lib/systemd/system etc/systemd/system; do
    mount -t tmpfs tmpfs root/$place
done
mount -t proc proc root/proc
mount -t sysfs sysfs root/sys
mount -t cgroup2 cgroup2 root/sys/fs/cgroup
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
    set -- $node
    mknod -m 666 root/dev/$1 c $2 $3
done
mkdir root/dev/shm root/dev/pts
mount -t devpts devpts root/dev/pts -o ptmxmode=666
ln -s pts/ptmx root/dev/ptmx
ln -s /proc/self/fd root/dev/fd
for stub in STUBS; do
    printf '[Unit]\nDefaultDependencies=no\n' >root/lib/systemd/system/$stub
done
# No journal here: what services say goes where it can be read.
mkdir root/etc/systemd/system/service.d
printf '[Service]\nStandardOutput=append:/tmp/said\nStandardError=inherit\n' \
    >root/etc/systemd/system/service.d/said.conf
cd root
mkdir run/old
pivot_root . run/old
umount -l run/old
rmdir run/old
exec chroot . env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    SYSTEMD_UNIT_PATH=/etc/systemd/system:/lib/systemd/system \
    /lib/systemd/systemd --unit=multi-user.target --log-target=console --show-status=no
""".replace("STUBS", " ".join(STUBS))


class Machine:
    """A machine in ``namespace``; ``directory`` has its files and its log."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.said = directory / "systemd.log"
        self._root = directory / "machine"
        self._root.mkdir()
        self._cgroup = Path(tempfile.mkdtemp(prefix="paraglider-test-", dir=_hierarchy()))
        # First the cgroup: in the namespace /sys is another.
        enter = ["sh", "-c", 'echo 0 >"$1/cgroup.procs"; shift; exec "$@"', "sh", str(self._cgroup)]
        apart = ["unshare", "--cgroup", "--mount", "--pid", "--ipc", "--uts", "--fork"]
        boot = ["--kill-child", "sh", "-c", BOOT, "sh", str(self._root)]
        with self.said.open("wb") as log:
            self._shell = subprocess.Popen(
                [*enter, *namespace.command([*apart, *boot])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.until(lambda: self._pid() and self.systemctl("is-system-running") == "running")
        except BaseException:
            self.close()
            raise

    def run(
        self, *argv: str, check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it as root."""
        done = subprocess.run(
            ["nsenter", "-t", str(self._pid()), "-a", "-r", "-w", *argv],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}{self.log()}"
        return done

    def systemctl(self, *arguments: str) -> str:
        """The output of `systemctl`, with any exit code."""
        return self.run("systemctl", "--no-pager", *arguments, check=False).stdout.strip()

    def write(self, path: str, text: str) -> None:
        """Make a file in it."""
        place = self.path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def path(self, path: str) -> Path:
        """The path of one of its files in this process."""
        return Path(f"/proc/{self._pid()}/root") / path.lstrip("/")

    def log(self) -> str:
        """The log of its services and its systemd."""
        services = self.path("/tmp/said")
        said = services.read_text(errors="replace") if services.exists() else ""
        return self.said.read_text(errors="replace") + said

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition()``; fail with the log when it does not come true."""

        def running() -> bool:
            assert self._shell.poll() is None, self.log()
            return bool(condition())

        wait_until(running, self.log)

    def close(self) -> None:
        """End everything in it, and leave nothing."""
        with contextlib.suppress(ProcessLookupError):
            self._shell.send_signal(signal.SIGKILL)
        self._shell.wait()
        for kill in self._cgroup.glob("cgroup.kill"):
            kill.write_text("1")

        def removed() -> bool:
            for place in sorted(self._cgroup.rglob("*/"), reverse=True):
                with contextlib.suppress(OSError):
                    place.rmdir()
            with contextlib.suppress(OSError):
                self._cgroup.rmdir()
            return not self._cgroup.exists()

        wait_until(removed)

    def _pid(self) -> int:
        """The process id of its systemd, as we see it; 0 while there is none."""
        parent = self._shell.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if not children or "systemd" not in Path(f"/proc/{children[0]}/comm").read_text():
            return 0
        return int(children[0])


def _hierarchy() -> Path:
    """The host's version 2 control group hierarchy."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise RuntimeError("this host has no control groups of version 2")
