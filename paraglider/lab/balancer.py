"""The real set-up and the real daemon, run in the balancer's namespace of a topology.

Lives here: ``LabBalancer``, which writes a configuration and runs ``paraglider.config`` and
``paraglider``; ``StaticBalancer``, which runs ``paraglider start``; and ``start_backend``.
Rules: programs are run as ``python -m`` with this interpreter, so that they use this source tree.
The daemon logs to a file, which is its only output that is read.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paraglider.errors import PlatformError
from paraglider.host import bpffs, carrier, carrier_links, decapsulation
from paraglider.lab.namespace import Namespace

# Lines of the daemon's log are key=value pairs.
READY = re.compile(r"\bevent=ready\b")
TROUBLE = re.compile(r"\blevel=(?:error|critical)\b|^Traceback ", re.MULTILINE)
#: where pins are, and how the names of links among them begin
_PLACES = {bpffs.PINS: carrier_links.PREFIXES, decapsulation.PINS: (decapsulation.LINK,)}
START_TIMEOUT = 120.0  # seconds until the daemon must be ready
STOP_TIMEOUT = 120.0  # seconds until it must have ended after SIGTERM: a proxy drains for ten


class LabBalancer:
    """A balancer with one configuration in ``namespace``; its files are in ``directory``.

    ``arguments`` (such as ``-6`` or ``-D``) are passed to the daemon.
    """

    def __init__(
        self, namespace: Namespace, directory: Path, config: str, arguments: Sequence[str] = ()
    ) -> None:
        self.namespace = namespace
        self.config = directory / "paraglider.conf"
        self.log_file = directory / "daemon.log"
        self.arguments = tuple(arguments)
        self.config.write_text(config, encoding="utf-8")
        self._daemon: subprocess.Popen[bytes] | None = None
        self._pins: list[int] = []

    @property
    def setup_command(self) -> list[str]:
        """``paraglider.config`` with this configuration, without options."""
        return [sys.executable, "-m", "paraglider.cli.setup_host", "-c", str(self.config)]

    @property
    def daemon_command(self) -> list[str]:
        """``paraglider`` with this configuration and the arguments."""
        return [sys.executable, "-m", "paraglider", "-c", str(self.config), *self.arguments]

    def set_up(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``paraglider.config`` (with ``--undo``, ``--dry-run``, …)."""
        return self.namespace.run([*self.setup_command, *options], check=check)

    def undo(self) -> None:
        """Undo ``set_up``; raises ``PlatformError`` when that fails."""
        try:
            self.set_up("--undo")
        finally:
            self.release_pins()

    def hold_pins(self) -> None:
        """Mount the labs' bpffs where they are missing, and have them open: in the mount namespace
        of `ip netns exec`, pins would end with its process.
        """
        if not self._pins:
            for place in _PLACES:
                with contextlib.suppress(PlatformError):  # where none is permitted, workers carry
                    self._pins.append(bpffs.mounted(place, bpffs.LAB_SOURCE))

    def release_pins(self) -> None:
        """Have the labs' bpffs open no longer, and unmount it; raises as ``unmount_pins``."""
        if self._pins:
            while self._pins:
                os.close(self._pins.pop())
            unmount_pins()

    def start(self) -> int:
        """Start the daemon and wait until it is ready; returns its process id.

        Raises ``PlatformError`` with the end of the log when it exits or does not get ready.
        """
        self.hold_pins()
        with self.log_file.open("ab") as log:
            begin = log.tell()
            daemon = self.namespace.popen(self.daemon_command, stdout=log, stderr=log)
        self._daemon = daemon
        deadline = time.monotonic() + START_TIMEOUT
        while not READY.search(self.log(begin)):
            ended = daemon.poll()
            if ended is not None or time.monotonic() > deadline:
                how = f"ended with exit {ended}" if ended is not None else "did not get ready"
                raise PlatformError(f"the daemon {how}: {self.log(begin)[-2000:].strip()}")
            time.sleep(0.02)
        return daemon.pid

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal ``number`` to the daemon and return its exit code (0 if none ran).

        Raises ``PlatformError`` when it does not exit in time; it is then killed.
        """
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            daemon.send_signal(number)
        try:
            return daemon.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            raise PlatformError(f"the daemon did not end within {STOP_TIMEOUT:g} s") from None

    def close(self) -> None:
        """Stop the daemon and undo the set-up, if there are any."""
        try:
            self.stop()
        finally:
            self.undo()

    @property
    def pid(self) -> int:
        """The process id of the running daemon; raises ``PlatformError`` if there is none."""
        if self._daemon is None:
            raise PlatformError("the daemon does not run", "call start first")
        return self._daemon.pid

    def carrier(self) -> dict[str, Any]:
        """The output of ``paraglider carrier --json``."""
        command = [sys.executable, "-m", "paraglider", "-c", str(self.config), "carrier", "--json"]
        found: dict[str, Any] = json.loads(self.namespace.run(command).stdout)
        return found

    def log(self, begin: int = 0) -> str:
        """The daemon's log, from the byte ``begin`` on."""
        if not self.log_file.exists():
            return ""
        with self.log_file.open("rb") as file:
            file.seek(begin)
            return file.read().decode("utf-8", errors="replace")

    def trouble(self) -> list[str]:
        """The lines of the log with errors and tracebacks."""
        return [line for line in self.log().splitlines() if TROUBLE.search(line)]


class StaticBalancer(LabBalancer):
    """A static set-up: made by ``paraglider start``, undone by ``stop``, without a daemon."""

    @property
    def setup_command(self) -> list[str]:
        """``paraglider start`` with this configuration."""
        return [*self._program, "start", "-c", str(self.config)]

    @property
    def _program(self) -> list[str]:
        return [sys.executable, "-m", "paraglider", *self.arguments]

    def hold_pins(self) -> None:
        """Nothing is pinned."""

    def start(self) -> int:
        """Nothing to do after ``set_up``; returns 0."""
        return 0

    def undo(self) -> None:
        """Run ``paraglider stop``; raises ``PlatformError`` when that fails."""
        self.namespace.run([*self._program, "stop"])

    def show(self) -> dict[str, Any]:
        """The output of ``paraglider show --json``."""
        shown: dict[str, Any] = json.loads(
            self.namespace.run([*self._program, "show", "--json"]).stdout
        )
        return shown


def start_backend(
    backend: Namespace, name: str, *, http: Sequence[int] = (80,), udp: Sequence[int] = ()
) -> None:
    """Start the lab's servers in ``backend`` and wait until they listen.

    Raises ``PlatformError`` with their output when they exit instead.
    """
    arguments = [sys.executable, "-m", "paraglider.lab.servers", name]
    for option, ports in (("--http", http), ("--udp", udp)):
        for port in ports:
            arguments += [option, str(port)]
    server = backend.popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert server.stdout is not None  # noqa: S101 - stdout=PIPE
    line = server.stdout.readline().decode(errors="replace").strip()
    if line != "listening":
        raise PlatformError(f"the servers of {name} ended: {line}")


def unmount_pins() -> None:
    """Unmount the labs' bpffs, unless another lab has them open, or a daemon, which may be down,
    has pins in them. Raises ``PlatformError``.
    """
    for place, links in _PLACES.items():
        try:
            carrier.remove_leftovers(place, *links)
        except OSError as error:
            raise PlatformError(f"{place} cannot be emptied: {error.strerror}") from error
        bpffs.unmount(place, bpffs.LAB_SOURCE)
