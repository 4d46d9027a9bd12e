"""The numbers of system calls against the kernel's own headers, as Debian installs them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paraglider.host.syscalls import NUMBERS

INCLUDE = Path("/usr/include")
X86_64 = INCLUDE / "x86_64-linux-gnu/asm/unistd_64.h"
GENERIC = INCLUDE / "asm-generic/unistd.h"


def defined(header: Path) -> dict[str, int]:
    """The definitions in ``header``; aarch64's 64-bit calls have the names of 3264."""
    if not header.exists():
        pytest.skip("linux-libc-dev of this machine has no such header")
    text = header.read_text(encoding="ascii")
    found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", text, re.MULTILINE)
    return {{"fstatat": "newfstatat"}.get(name, name): int(number) for name, number in found}


@pytest.mark.parametrize(("header", "column"), [(X86_64, 0), (GENERIC, 1)], ids=["x86", "arm"])
def test_numbers_are_the_kernels(header: Path, column: int) -> None:
    """Each call has the number of the header, or None if it is not there."""
    known = defined(header)
    ours = {name: row[column] for name, row in NUMBERS.items()}
    assert ours == {name: known.get(name) for name in NUMBERS}
