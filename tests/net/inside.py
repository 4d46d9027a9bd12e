"""The set-up and its undo, run by the test's own process in the balancer's namespace.

It is the same command with the same arguments and results: lines, errors, an exit code. A new
process would spend half a second on imports, twice per test; ``tests/cli``, ``tests/lab`` and
``test_lab`` test that the programs start.
"""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
from collections.abc import Iterator, Sequence

import click

from paraglider.cli.errors import exit_code
from paraglider.cli.main import main
from paraglider.cli.setup_host import PROG, setup_host
from paraglider.errors import PlatformError
from paraglider.lab.balancer import LabBalancer, StaticBalancer
from paraglider.lab.namespace import Namespace


class InsideBalancer(LabBalancer):
    """A balancer that is set up and undone by this process."""

    @property
    def runs(self) -> bool:
        """Whether the daemon has been started, and not been stopped since."""
        return self._daemon is not None

    def set_up(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """See ``LabBalancer``; the mount of a program would end with it."""
        self.hold_pins()
        arguments = ["-c", str(self.config), *options]
        return run_inside(self.namespace, setup_host, PROG, arguments, check=check)


class InsideStaticBalancer(StaticBalancer):
    """A balancer that this process starts and stops."""

    def set_up(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """See ``StaticBalancer``."""
        return self._run("start", "-c", str(self.config), *options, check=check)

    def undo(self) -> None:
        """See ``StaticBalancer``."""
        self._run("stop")

    def _run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        given = [*self.arguments, *arguments]
        return run_inside(self.namespace, main, "paraglider", given, check=check)


def run_inside(
    namespace: Namespace,
    command: click.Command,
    prog: str,
    arguments: Sequence[str],
    *,
    check: bool,
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``namespace``; raises ``PlatformError`` as ``namespace.run`` does."""
    out, err = _Text(), _Text()
    with _in(namespace), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = exit_code(command, prog, arguments)
    given = [prog, *arguments]
    if check and code != 0:
        words = (err.getvalue() or out.getvalue()).strip()
        raise PlatformError(f"{' '.join(given)}: exit {code}: {words[-2000:]}")
    return subprocess.CompletedProcess(given, code, out.getvalue(), err.getvalue())


class _Text(io.StringIO):
    """An output of a program, which asks for its encoding."""

    encoding = "utf-8"


@contextlib.contextmanager
def _in(namespace: Namespace) -> Iterator[None]:
    """Be in ``namespace`` meanwhile, whose commands may take SIGTERM for themselves."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with namespace.entered():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
