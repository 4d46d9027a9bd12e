"""Tests of ``paraglider.forward.load``: what ``config.load`` offers, with the methods known."""

from __future__ import annotations

import subprocess
import sys

from paraglider.config import load as below
from paraglider.forward import load

TEXT = "services: [{name: a, vip: 192.0.2.1, protocol: tcp, backends: [10.0.0.1]}]"
PROGRAM = "from {} import parse; print(parse({!r}, 'f').config.services[0].forward)"


def test_it_offers_the_same() -> None:
    """Under the same names, and none besides."""
    for name in load.__all__:
        assert getattr(load, name) is getattr(below, name)
    assert {"load", "parse", "accepted"} <= set(load.__all__)


def test_importing_it_registers_the_methods() -> None:
    """In a new process without other imports: ``config`` alone has no methods."""
    for module, known in (("paraglider.forward.load", True), ("paraglider.config.load", False)):
        command = [sys.executable, "-c", PROGRAM.format(module, TEXT)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == known
        assert (done.stdout == "nat\n") == known
        assert known or "import paraglider.forward.registry" in done.stderr
