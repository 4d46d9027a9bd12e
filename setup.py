"""Packaging of Paraglider; the settings of the tools are in pyproject.toml.

The modules of the packet path are compiled where Cython and a compiler are; where not, or with
PARAGLIDER_PURE set, they run interpreted (``paraglider._compiled``). The BPF carrier's object is
built where clang and libbpf's headers are (``build_bpf``); where not, the package has none, and
workers carry all packets.
Rules: the version is read from ``paraglider/__init__.py`` as text, never by importing it, so that
the package can be built before anything it depends on is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, find_packages, setup
from setuptools.command.build import build

HERE = Path(__file__).resolve().parent

#: every packet passes these; each .py has its types in a .pxd beside it
COMPILED = (
    "paraglider/bpf/_maps.pyx",
    "paraglider/core/_sums.pyx",
    "paraglider/core/hmark.py",
    "paraglider/core/siphash.py",
    "paraglider/core/journal.py",
    "paraglider/core/translation.py",
    "paraglider/core/flow.py",
    "paraglider/core/compact_index.py",
    "paraglider/core/flow_index.py",
    "paraglider/core/timer_wheel.py",
    "paraglider/core/flow_table.py",
    "paraglider/core/compact.py",
    "paraglider/core/tcp_events.py",
    "paraglider/core/restore.py",
    "paraglider/core/resteering.py",
    "paraglider/core/_unread.pyx",
    "paraglider/core/unread.py",
    "paraglider/forward/bpf/entry.py",
    "paraglider/forward/bpf/removed.py",
    "paraglider/forward/bpf/flows.py",
    "paraglider/forward/bpf/closed.py",
    "paraglider/forward/bpf/decided.py",
    "paraglider/forward/bpf/events.py",
    "paraglider/forward/nat/flows.py",
    "paraglider/forward/nat/datapath.py",
    "paraglider/forward/one_sided.py",
    "paraglider/netfilter/queue/_batch.pyx",
    "paraglider/netfilter/queue/netlink.py",
)


def version() -> str:
    """The ``__version__`` of the package."""
    text = (HERE / "paraglider" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise SystemExit('paraglider/__init__.py has no line __version__ = "..."')
    return match[1]


def extensions() -> list[Extension]:
    """The compiled modules; none where they are not wanted or cannot be made."""
    if os.environ.get("PARAGLIDER_PURE"):
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    modules = [
        # Optional: what does not compile runs interpreted.
        Extension(
            source.rpartition(".")[0].replace("/", "."),
            [source],
            # Without -g, which Python's own flags have: it takes a fourth of the time.
            extra_compile_args=["-O3", "-g0"],
            optional=True,
        )
        for source in COMPILED
    ]
    found: list[Extension] = cythonize(  # type: ignore[no-untyped-call]
        modules,
        build_dir="build/cython",
        quiet=True,
        # From 3.14 on a process pool would run this file once more in each process.
        nthreads=(os.cpu_count() or 1) if sys.version_info < (3, 14) else 0,
        # The annotations are Python's, whose int is unbounded; what is a C number says the .pxd.
        compiler_directives={"language_level": 3, "annotation_typing": False},
    )
    return found


class build_bpf(Command):  # type: ignore[misc]  # noqa: N801 (named as its command)
    """Builds the objects of the BPF programs by clang: the carrier's, and the one that takes off
    the outer headers of tunnels.

    An object that is newer than its sources stays. Without clang or libbpf's headers there is no
    object and a warning: the package works without.
    """

    description = "build the BPF carrier"
    user_options: ClassVar = [
        ("build-lib=", "b", "folder of what is built"),
        ("inplace", "i", "put the object beside its source"),
    ]
    boolean_options: ClassVar = ["inplace"]
    folder = Path("paraglider", "bpf")
    #: the sources of each object, the program first
    objects: ClassVar = {
        "carrier.bpf.o": (
            "carrier.bpf.c",
            *("access.h", "alias.h", "clients.h", "decide.h", "flows.h", "gue.h", "layout.h"),
            *("one_sided.h", "parse.h", "route.h", "siphash.h", "steer.h", "translate.h"),
            *("tunnel.h", "xdp.h"),
        ),
        "decap.bpf.o": ("decap.bpf.c", "gue.h"),
    }
    #: set by setuptools when the package is installed for editing, where scripts/bootstrap builds
    editable_mode = False

    def initialize_options(self) -> None:
        """Set the options to their defaults."""
        self.inplace = False
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        """Take the folder of what is built from ``build``."""
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        """Build the objects."""
        for name, sources in self.objects.items():
            self._build(name, [HERE / self.folder / source for source in sources])

    def _build(self, name: str, sources: list[Path]) -> None:
        root = HERE if self.inplace else Path(self.build_lib or HERE)
        into = root / self.folder / name
        newest = max(source.stat().st_mtime for source in sources)
        if self.editable_mode or (into.exists() and into.stat().st_mtime >= newest):
            return
        clang = shutil.which("clang")
        if clang is None:
            self.warn("no clang: the package has no BPF carrier")
            return
        into.parent.mkdir(parents=True, exist_ok=True)
        # The kernel's headers of the host, which clang does not search for another target.
        headers = f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"
        flags = ("-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3")
        paths = (f"-ffile-prefix-map={HERE}=.", "-idirafter", headers)
        command = [clang, *flags, *paths, "-c", str(sources[0]), "-o", str(into)]
        if subprocess.run(command, cwd=HERE, check=False).returncode:
            self.warn("the BPF carrier does not build: the package has none")
            into.unlink(missing_ok=True)

    def get_source_files(self) -> list[str]:
        """The sources, which an sdist has."""
        return [str(self.folder / name) for names in self.objects.values() for name in names]

    def get_outputs(self) -> list[str]:
        """Files that are built; none is promised."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """Files that are installed for editing."""
        return {}


build.sub_commands = [*build.sub_commands, ("build_bpf", None)]

setup(
    name="paraglider",
    version=version(),
    description="Turns any Linux host into a layer-4 load balancer: Python decides, packets fly.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["paraglider", "paraglider.*"]),
    package_data={
        "paraglider": ["py.typed"],
        "paraglider.bpf": ["*.c", "*.h"],
        "paraglider.daemon.web": ["static/*"],
        "": ["*.pxd", "*.pyx", "*.pyi"],
    },
    ext_modules=extensions(),
    cmdclass={"build_bpf": build_bpf},
    scripts=["scripts/paraglider.config"],
    entry_points={"console_scripts": ["paraglider=paraglider.cli.main:entry"]},
    install_requires=[
        "NetfilterQueue>=1.1",
        "PyYAML>=6",
        "aiohttp>=3.12",
        "click>=8.1",
        "dnspython>=2.6",
        "prometheus-client>=0.17",
        "pydantic>=2.6",
        "python-prctl>=1.8",
        "rich>=13",
        "structlog>=23.1",
        "uvloop>=0.19",
    ],
    extras_require={
        "test": [
            "atheris>=3; platform_machine == 'x86_64'",
            "exabgp>=5,<6",
            "hypothesis>=6",
            "import-linter>=2",
            "jsonschema>=4",
            "mypy>=1.8",
            "pyroute2>=0.7",
            "pytest>=8",
            "pytest-timeout>=2.2",
            "pytest-xdist>=3.7",
            "ruff>=0.5",
            "scapy>=2.5",
            "selenium>=4.11",
            "types-PyYAML",
            "vulture>=2.11",
        ],
    },
    classifiers=[
        "Environment :: No Input/Output (Daemon)",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
)
