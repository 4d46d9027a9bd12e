"""Errors of the operator and of the platform; imported by every other module.

A message has the problem and its place; ``remedy`` is the correction. ``cli`` prints both on one
line without a traceback and exits with ``exit_code``. Bytes from the wire never raise: the core
counts them by reason (``core.verdict``).
"""

from __future__ import annotations

import os
import shutil


def as_root(command: str) -> str:
    """``command`` as the operator types it to run it as root: with sudo, unless this process is
    root's, as in a container, or there is no sudo.
    """
    needed = os.geteuid() != 0 and shutil.which("sudo") is not None
    return f"sudo {command}" if needed else command


class ParagliderError(Exception):
    """Base of the errors that are shown to the operator: a message and a remedy."""

    exit_code = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


class OperatorError(ParagliderError):
    """The operator's mistake: configuration, arguments, permissions, a missing program. Exit 1."""

    exit_code = 1


class PlatformError(ParagliderError):
    """The platform refused: the kernel lacks a feature or rejected a request. Exit 2."""

    exit_code = 2
