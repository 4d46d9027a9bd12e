"""``python -m paraglider`` is the command line."""

from __future__ import annotations

import subprocess
import sys

import paraglider


def test_the_module_is_the_command() -> None:
    """Its output and exit code are those of the console script."""
    command = [sys.executable, "-m", "paraglider"]
    told = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert paraglider.__version__ in told.stdout
    assert subprocess.run([*command, "--nonsense"], capture_output=True).returncode == 1
