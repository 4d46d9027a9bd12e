"""Waiting for a condition: the one loop and the one timeout of the tests.

Importable by its name (``conftest`` puts this directory on ``sys.path``).
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from paraglider.host import rtnetlink
from paraglider.lab.namespace import Namespace

#: Seconds until something that must happen counts as not happening. Only a test that fails waits so
#: long, so a busy machine has time.
TIMEOUT: Final = 60.0
INTERVAL: Final = 0.02  # seconds between two looks
#: Seconds that something gets whose end by a limit is tested; a busy machine needs the later ones.
LIMITS: Final = (1, 5, 30)
_GETLINK, _IFINFOMSG = 18, 16  # RTM_GETLINK, the size of struct ifinfomsg (linux/rtnetlink.h)
_NAME, _OPERSTATE, _UP = 3, 16, b"\6"  # linux/if_link.h; IF_OPER_UP of linux/if.h

_T = TypeVar("_T")


def wait_until(condition: Callable[[], _T], report: Callable[[], object] | None = None) -> _T:
    """Wait until ``condition()`` is true, and return its value; fail with ``report()``, such as a
    log, if it is not within ``TIMEOUT``: the last look begins after that, however long the one
    before took, or this process was stopped.
    """
    deadline = time.monotonic() + TIMEOUT
    late = False
    while not (value := condition()):
        assert not late, report() if report else f"not within {TIMEOUT:g} s"
        time.sleep(INTERVAL)
        late = time.monotonic() >= deadline
    return value


def ends_at_its_limit(run: Callable[[int], _T], expected: Callable[[int], _T]) -> None:
    """Assert that ``run(limit)``, which lasts ``limit`` seconds, gives ``expected(limit)`` for one
    of the ``LIMITS``: with a short one the machine may be too busy to get as far as expected.
    """
    for limit in LIMITS:
        found, wanted = run(limit), expected(limit)
        if found == wanted:
            return
    assert found == wanted


def await_connected(namespace: Namespace, *interfaces: str) -> None:
    """Wait until the kernel has seen that these ``interfaces`` are connected. It does so by and by
    (net/core/link_watch.c), and until then drops what they send, and gives them no address.
    """

    def connected() -> bool:
        with namespace.entered():
            links = rtnetlink.dump("list the interfaces", _GETLINK, bytes(_IFINFOMSG))
            said = [rtnetlink.read_attributes(link, _IFINFOMSG) for link in links]
        up = {each[_NAME].rstrip(b"\0").decode() for each in said if each[_OPERSTATE] == _UP}
        return up >= set(interfaces)

    wait_until(connected)
    namespace.await_routed()


def descriptors() -> int:
    """How many this process has open, without those of objects that nobody has any more, which the
    collector would close at any time.
    """
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def runs(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def exit_code(pid: int) -> int:
    """The exit code of a child, once it has ended."""

    def ended() -> tuple[int, int] | None:
        found = os.waitpid(pid, os.WNOHANG)
        return found if found[0] else None

    found = wait_until(ended)
    assert found is not None
    return os.waitstatus_to_exitcode(found[1])
