"""Runs programs of the host: found by absolute path, run as argument lists, never by a shell.

Lives here: the search path, the Debian package of each program, and error messages.
Rules: a missing program raises ``OperatorError`` that names the package; a program that fails
raises ``PlatformError`` with its error output.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from paraglider.errors import OperatorError, PlatformError, as_root

_PACKAGES = {
    "iptables-restore": "iptables",
    "iptables-save": "iptables",
    "ip6tables-restore": "iptables",
    "ip6tables-save": "iptables",
    "iptables-legacy-restore": "iptables",
    "iptables-legacy-save": "iptables",
    "ip6tables-legacy-restore": "iptables",
    "ip6tables-legacy-save": "iptables",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "unshare": "util-linux",
}
_SECONDS = 60.0
#: an ordinary user's PATH, and that of some service managers and of `su`, lacks them
_SBIN = ("/usr/sbin", "/sbin")


def find_program(name: str) -> str:
    """The absolute path of ``name`` on PATH or in the sbin directories.

    Raises ``OperatorError`` that names the Debian package when the program is missing.
    """
    path = shutil.which(name, path=_with_sbin())
    if path is None:
        package = _PACKAGES.get(name, name)
        raise OperatorError(
            f"the program {name} is missing", f"install it: {as_root(f'apt-get install {package}')}"
        )
    return path


def search_sbin() -> None:
    """Have this process, and those that it starts, search the sbin directories too."""
    os.environ["PATH"] = _with_sbin()


def _with_sbin() -> str:
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([*places, *_SBIN]))


def attempt(
    argv: Sequence[str], stdin: str = "", seconds: float = _SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` (program name first) with ``stdin``, for at most ``seconds``; returns its
    result, also if it failed.
    """
    path = find_program(argv[0])
    # Messages and saved rules are parsed here: they must not be translated.
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            [path, *argv[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PlatformError(
            f"{shlex.join(argv)} did not end within {seconds:g} s", "see what it waits for"
        ) from None


def run(argv: Sequence[str], stdin: str = "") -> str:
    """Run ``argv`` and return its output; raises ``PlatformError`` with its error output."""
    done = attempt(argv, stdin)
    if done.returncode != 0:
        raise PlatformError(f"{shlex.join(argv)} failed: {complaint(done)}")
    return done.stdout


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The error output of a failed program, on one line."""
    said = " ".join((done.stderr.strip() or done.stdout.strip()).split())
    return said or f"exit code {done.returncode}"
