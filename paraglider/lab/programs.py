"""Programs of others that run in a lab until its end.

Lives here: ``start_and_await``.
Rules: what a program prints is in a file of the lab's directory.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from paraglider.errors import PlatformError
from paraglider.lab.namespace import Namespace

TIMEOUT: Final = 30.0  # seconds until a program must answer
_POLL: Final = 0.05  # seconds


def start_and_await(
    host: Namespace, command: Sequence[str], asking: Sequence[str], output: Path
) -> subprocess.Popen[bytes]:
    """Start ``command`` in ``host``, and wait until the command ``asking``, which asks it
    something, succeeds. Raises ``PlatformError`` if it ends before, or after a timeout.
    """
    with output.open("ab") as log:
        running = host.popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + TIMEOUT
    while host.run(asking, check=False).returncode != 0:
        if running.poll() is not None or time.monotonic() > deadline:
            raise PlatformError(f"{command[0]} in {host.name} does not answer", f"see {output}")
        time.sleep(_POLL)
    return running
