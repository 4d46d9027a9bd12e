"""Why this host cannot have the BPF carrier, in a sentence with a remedy.

Lives here: ``CarrierUnavailableError``, ``SourceUnavailableError``, ``object_file``,
``require_kernel``, ``unavailable``, and ``not_carried``, by interface.
Rules: nothing is changed. The kernel's own refusals become sentences here too.
"""

from __future__ import annotations

import errno
import os
import re
from importlib import resources
from pathlib import Path
from typing import Final

from paraglider.config.model import Config
from paraglider.errors import PlatformError, as_root
from paraglider.host.link_state import lacks_header

OBJECT: Final = "carrier.bpf.o"
#: its function
PROGRAM: Final = "carry"
#: its function for XDP, in front of that
EARLY_PROGRAM: Final = "carry_early"
#: tcx links, and BPF_FIB_LOOKUP_SKIP_NEIGH, which came before them
KERNEL: Final = (6, 6)
_LOCKDOWN: Final = Path("/sys/kernel/security/lockdown")
_WORKER: Final = "or set `carrier: worker`"


class CarrierUnavailableError(PlatformError):
    """BPF cannot carry on this host."""


class SourceUnavailableError(CarrierUnavailableError):
    """BPF cannot carry the flows of methods that ask for the source of a route, on this kernel."""

    def __init__(self, what: str) -> None:
        super().__init__(what, f"use Linux 6.7, {_WORKER}")


def object_file() -> bytes:
    """The object file of the program; raises ``CarrierUnavailableError`` where it is not built."""
    try:
        return resources.files("paraglider.bpf").joinpath(OBJECT).read_bytes()
    except OSError:
        raise CarrierUnavailableError(
            f"the BPF program {OBJECT} was not built with this installation",
            f"install a package that has it, or run scripts/bootstrap where clang is, {_WORKER}",
        ) from None


def require_kernel(release: str | None = None) -> None:
    """Raise ``CarrierUnavailableError`` for a kernel ``release`` that is too old; default: this."""
    release = release or os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is not None and (int(found[1]), int(found[2])) < KERNEL:
        wanted = ".".join(map(str, KERNEL))
        raise CarrierUnavailableError(
            f"Linux {release} has no BPF links at tc ingress", f"use Linux {wanted}, {_WORKER}"
        )


def not_carried(config: Config) -> list[str]:
    """Why BPF will not carry what comes in by an interface of ``config``, a line for each; raises
    ``PlatformError``.
    """
    sides = (config.network.public, config.network.private) if config.wants_bpf else ()
    names = dict.fromkeys(side.interface for side in sides if side is not None)
    return [
        f"interface {name}: packets that come in have no Ethernet header, workers carry them"
        for name in names
        if lacks_header(name)
    ]


def unavailable(number: int, what: str, lockdown: Path = _LOCKDOWN) -> CarrierUnavailableError:
    """The error for a refusal of the kernel with the error ``number``, described by ``what``."""
    if number == errno.ENOSYS:
        return CarrierUnavailableError("the kernel was built without bpf(2)", _WORKER[3:])
    if number in (errno.EPERM, errno.EACCES) and _locked_down(lockdown):
        return CarrierUnavailableError(
            f"{what}; the kernel is locked down ({lockdown})", f"boot without lockdown, {_WORKER}"
        )
    if number == errno.EPERM:
        return CarrierUnavailableError(
            what, f"the daemon needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN at its start, {_WORKER}"
        )
    if number == errno.ENOENT and "libbpf" in what:
        remedy = f"install it: {as_root('apt-get install libbpf1')}"
        return CarrierUnavailableError(what, f"{remedy}, {_WORKER}")
    if number in (errno.ENOMEM, errno.E2BIG):
        return CarrierUnavailableError(what, f"lower `flows.max`, {_WORKER}")
    return CarrierUnavailableError(what, f"report it with the kernel's version, {_WORKER}")


def _locked_down(file: Path) -> bool:
    """Whether the kernel is in a mode of lockdown: the one in brackets is not `none`."""
    try:
        return "[none]" not in file.read_text(encoding="ascii")
    except OSError:
        return False
