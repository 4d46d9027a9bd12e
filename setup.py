"""Packaging of Paraglider; the settings of the tools are in pyproject.toml.

The modules of the packet path are compiled where Cython and a compiler are; where not, or with
PARAGLIDER_PURE set, they run interpreted (``paraglider._compiled``).
Rules: the version is read from ``paraglider/__init__.py`` as text, never by importing it, so that
the package can be built before anything it depends on is installed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).resolve().parent

#: every packet passes these; each .py has its types in a .pxd beside it
COMPILED = (
    "paraglider/core/_sums.pyx",
    "paraglider/core/journal.py",
    "paraglider/core/translation.py",
    "paraglider/core/flow.py",
    "paraglider/core/timer_wheel.py",
    "paraglider/core/flow_table.py",
    "paraglider/core/tcp_events.py",
    "paraglider/forward/nat/datapath.py",
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
            extra_compile_args=["-O3"],
            optional=True,
        )
        for source in COMPILED
    ]
    found: list[Extension] = cythonize(  # type: ignore[no-untyped-call]
        modules,
        build_dir="build/cython",
        quiet=True,
        # The annotations are Python's, whose int is unbounded; what is a C number says the .pxd.
        compiler_directives={"language_level": 3, "annotation_typing": False},
    )
    return found


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
        "paraglider.daemon.web": ["static/*"],
        "": ["*.pxd", "*.pyx", "*.pyi"],
    },
    ext_modules=extensions(),
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
