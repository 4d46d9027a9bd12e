"""Fixtures of all tests.

Properties draw the same examples every time; without root, tests marked ``root`` are skipped, with
the reason; each process has mounts of its own (``mounts``); and a terminal to run a program in.
``scripts/test --hypothesis-profile=explore`` draws other examples at every run.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

import paraglider.forward.registry  # noqa: F401 the model knows the methods from here on
from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import new_prefix

# With --import-mode=importlib the tests find no module beside them, such as ``waiting``.
sys.path.insert(0, str(Path(__file__).parent))

# Explored on purpose, not by whoever happens to run the tests: a run says the same of one tree
# each time, and no example has a time to keep on a machine that others use too.
settings.register_profile("explore", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

# Hypothesis draws constants of the modules that the process has imported by then, too: of which
# depends on the files that it has tested before.
_constants_of_modules = providers._get_local_constants


def _constants() -> providers.Constants:
    explored = settings.get_current_profile_name() == "explore"
    return _constants_of_modules() if explored else providers.Constants()


providers._get_local_constants = _constants

#: folders whose files take long
_LONG = ("net", "tests")
_LONG_TIMEOUT = 400  # seconds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need root without it; if processes share the files, run slow ones first,
    networks and documents, so that all processes end together. These have more time to end: on a
    machine that others use too they take several times as long.
    """
    for item in items:
        if item.path.parent.name in _LONG and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_LONG_TIMEOUT))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.parent.name not in _LONG)
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: run sudo scripts/test")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _own_mounts() -> None:
    """Other runs on this host change nothing that these tests see; killed ones leave nothing."""
    if os.geteuid() == 0:
        from mounts import end_orphans, isolate, watch

        end_orphans()
        watch()
        with contextlib.suppress(PermissionError):  # root of a container, which has no networks
            isolate()


_ESCAPE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")
_BEGUN = re.compile(r"\x1b(\[\??[0-9;]*)?$")  # its rest comes with the next bytes


class Screen:
    """``command`` in a terminal, and its screen. ``lines`` are those of the last screen, ``said``
    is the output outside of screens; ``taken`` is true while the alternate screen is used,
    ``cursor`` while it is visible.
    """

    def __init__(self, command: Sequence[str], columns: int = 80, rows: int = 24) -> None:
        self._ours, self._theirs = os.openpty()
        self.resize(columns, rows)
        self.settings_before = self.settings
        self.lines: list[str] = []
        self.said = ""
        self.taken, self.cursor = False, True
        self._row = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._begun = ""
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            # A terminal of its own, whose signals reach it; where the tests run in the background
            # they have these ignored, and that is inherited.
            ["setsid", "--ctty", "env", "--default-signal=INT,HUP", *command],
            env={**environment, "TERM": "xterm"},
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
        )

    @property
    def settings(self) -> object:
        """How the terminal is set."""
        return termios.tcgetattr(self._theirs)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Press ``keys``."""
        os.write(self._ours, keys.encode())

    def until(self, true: Callable[[], object]) -> None:
        """Read the screen until the condition holds."""
        from waiting import wait_until

        def reads() -> bool:
            if true():
                return True
            if select.select([self._ours], [], [], 0.05)[0]:
                self._take(os.read(self._ours, 1 << 16))
            return False

        wait_until(reads, lambda: (self.lines, self.said))

    def end(self) -> int:
        """The program's exit code; all that it wrote has been taken."""
        self.until(lambda: self.process.poll() is not None)
        while select.select([self._ours], [], [], 0)[0]:
            self._take(os.read(self._ours, 1 << 16))
        return self.process.returncode

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _take(self, data: bytes) -> None:
        text, at = self._begun + self._decoder.decode(data), 0
        begun = _BEGUN.search(text)
        text, self._begun = (text[: begun.start()], begun[0]) if begun else (text, "")
        for found in _ESCAPE.finditer(text):
            self._put(text[at : found.start()])
            at = found.end()
            private, numbers, letter = found.groups()
            if private and numbers == "1049":
                self.taken = letter == "h"
            elif private and numbers == "25":
                self.cursor = letter == "h"
            elif letter == "H":
                self._row = int(numbers.partition(";")[0] or 1) - 1
                self.lines += [""] * (self._row + 1 - len(self.lines))
                self.lines[self._row] = ""
                if self._row == 0:
                    del self.lines[1:]
        self._put(text[at:])

    def _put(self, text: str) -> None:
        if self.taken and self.lines:
            self.lines[self._row] += text
        elif not self.taken:
            self.said += text


@pytest.fixture
def in_terminal() -> Iterator[Callable[..., Screen]]:
    """A function that runs a program in a terminal of some ``columns`` and ``rows``."""
    made: list[Screen] = []

    def run(command: Sequence[str], **size: int) -> Screen:
        made.append(Screen(command, **size))
        return made[-1]

    yield run
    for screen in made:
        screen.close()


@pytest.fixture
def inside() -> Iterator[Namespace]:
    """A network namespace with loopback and one veth pair, in which the test runs."""
    from waiting import await_connected

    with Namespace(f"{new_prefix()}-host") as namespace:
        namespace.ip(
            "link add eth0 type veth peer name eth1", "link set eth0 up", "link set eth1 up"
        )
        await_connected(namespace, "eth0", "eth1")
        with namespace.entered():
            yield namespace
