"""The machine and the versions of a run."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from bench import parse
from paraglider import __version__
from paraglider.errors import ParagliderError
from paraglider.lab.namespace import execute

ROOT = Path(__file__).resolve().parents[1]

_ASK = {
    "HAProxy": ["haproxy", "-v"],
    "nginx": ["nginx", "-v"],
    "iptables": ["iptables", "--version"],
    "wrk": ["wrk", "-v"],
    "iperf3": ["iperf3", "--version"],
}


def describe(proc: Path = Path("/proc")) -> dict[str, str]:
    """Kernel, processors, memory and Python of this machine."""
    model = re.search(r"^model name\s*: (.*)$", (proc / "cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", (proc / "meminfo").read_text(), re.MULTILINE)
    return {
        "kernel": platform.release().partition("-")[0],  # what a vendor adds tells little
        "cpus": str(len(os.sched_getaffinity(0))),
        "cpu": model[1] if model else platform.machine(),
        "memory": f"{int(memory[1]) / 2**20:.1f} GiB" if memory else "unknown",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """The versions of all programs involved, ``missing`` for those not installed."""
    found = {"Paraglider": f"{__version__} ({_commit()})"}
    for name, command in _ASK.items():
        try:
            done = execute(command, check=False)
            found[name] = parse.version(done.stdout + done.stderr)
        except ParagliderError:
            found[name] = "missing"
    return found


def _commit() -> str:
    """The commit of this checkout, with + where files differ from it."""
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
    try:
        commit = execute([*git, "rev-parse", "--short", "HEAD"]).stdout.strip()
        changed = execute([*git, "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except ParagliderError:
        return "no git"
    return commit + ("+" if changed else "")
