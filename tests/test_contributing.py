"""The recipes of CONTRIBUTING.md are followed literally, in a copy of the package.

A block of `python` in a recipe begins with a comment that names its file; each is written there,
and nothing else is edited. Then the new strategy or probe must work, in the compiled and in the
interpreted build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
CONFIG = """services:
  - name: web
    vip: 192.0.2.1
    protocol: tcp
    ports: 80
    SETTING
    backends: [127.0.0.1, {address: 127.0.0.2, weight: 3}]
    forward: proxy
"""

#: a new flow is decided by the balancer that `-D` puts in the worker
DEBUG = """
from paraglider.core.flow import TCP
from paraglider.core.service import ServiceMap
from paraglider.core.strategies import STRATEGIES, NewFlow
from paraglider.core.tracing import TracingBalancer
from paraglider.forward.load import load
from paraglider.forward.services import make_services
services = make_services(load("c"), lambda m: m.name == "proxy", 0, STRATEGIES)
balancer = TracingBalancer(ServiceMap(services))
flow = NewFlow(TCP, bytes((192, 0, 2, 9, 192, 0, 2, 1, 156, 64, 0, 80)), 0.0)
backend = balancer.choose(services[0], flow, lambda _: False)
print(balancer.decision_on(TCP, flow.key, backend).why)
"""


def blocks(heading: str) -> dict[str, str]:
    """The files of the recipe under ``heading``, by their paths."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    fenced = re.compile(r"^ {3}```python\n {3}# (\S+)\n(.*?)^ {3}```$", re.MULTILINE | re.DOTALL)
    found = fenced.findall(section)
    assert found, f"no file in the recipe {heading}"
    return {path: textwrap.dedent(text) for path, text in found}


class Copy:
    """A copy of the package with the files of a recipe."""

    def __init__(self, home: Path, heading: str, build: str) -> None:
        self.home = home
        self.environment = dict(os.environ)
        if build == "interpreted":
            self.environment["PARAGLIDER_PURE"] = "1"
        shutil.copytree(
            ROOT / "paraglider", home / "paraglider", ignore=shutil.ignore_patterns("__pycache__")
        )
        for path, text in blocks(heading).items():
            assert not (ROOT / path).exists(), "a recipe adds a file"
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_text(text)

    def python(self, *arguments: str) -> str:
        """The output of Python with ``arguments``, importing the copy."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def config(self, setting: str) -> None:
        """Write the configuration ``c`` with a line for the service."""
        (self.home / "c").write_text(CONFIG.replace("SETTING", setting))


@pytest.fixture(params=["compiled", "interpreted"])
def build(request: pytest.FixtureRequest) -> str:
    """Either build."""
    name: str = request.param
    return name


def test_a_strategy_is_added_by_its_recipe(tmp_path: Path, build: str) -> None:
    """`check`, the schema, `explain` and `-D` have it by its one file, which passes its test."""
    copy = Copy(tmp_path, "Add a strategy", build)
    copy.config("strategy: p2c\n    strategy_parameters: {draws: 3}")
    assert "strategy=p2c" in (said := copy.python("-m", "paraglider", "check", "-c", "c"))
    assert "p2c picks of `draws` backends drawn at random the one" in said
    assert '"const": "p2c"' in (schema := copy.python("-m", "paraglider.forward.schema"))
    assert '"draws"' in schema
    flow = ("tcp", "192.0.2.9:40000", "192.0.2.1:80")
    explained = copy.python("-m", "paraglider", "explain", "-c", "c", *flow)
    assert "p2c picks of `draws` backends" in explained
    assert copy.python("-c", DEBUG) == "p2c, of 2 ready\n"
    copy.config("strategy: random2")
    assert "strategy=p2c" in copy.python("-m", "paraglider", "check", "-c", "c")
    tests = [path for path in blocks("Add a strategy") if path.startswith("tests/")]
    shutil.copy(ROOT / "pyproject.toml", copy.home)
    copy.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)


SERVER = """
import socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    connection, _ = listening.accept()
    connection.sendall(b"220 mail.example.com ESMTP\\r\\n")
    connection.close()
"""

#: what the monitor says of the first backend
CHECKED = """
import asyncio
from paraglider.forward.load import load
from paraglider.health.checker import Checker
from paraglider.health.results import CheckReport
from paraglider.health.targets import target
async def main():
    heard = asyncio.Queue()
    checker = Checker(heard.put_nowait)
    await checker.start()
    (service,) = load("c").services
    checker.update((target(service, service.backends[0], "first"),))
    while not isinstance(news := await heard.get(), CheckReport):
        pass
    print(news.code, news.detail)
    await checker.close()
asyncio.run(main())
"""


def test_a_probe_is_added_by_its_recipe(tmp_path: Path, build: str) -> None:
    """`check` and the schema have it by its one file, the monitor runs it and reports its codes."""
    copy = Copy(tmp_path, "Add a probe", build)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            words = f"type: banner, port: {port}, timeout: 20, interval: 20"
            copy.config(f"check: {{{words}, parameters: {{starts: '220 '}}}}")
            copy.python("-m", "paraglider", "check", "-c", "c")
            assert '"const": "banner"' in copy.python("-m", "paraglider.forward.schema")
            assert copy.python("-c", CHECKED) == "L7OK 220 mail.example.com ESMTP\n"
            copy.config(f"check: {{{words}, parameters: {{starts: 'SSH-'}}}}")
            assert copy.python("-c", CHECKED).startswith("L7RSP 220 mail.example.com")
        finally:
            server.kill()
    (copy.home / "tests/health").mkdir(exist_ok=True)
    for shared in (
        "tests/conftest.py",
        "tests/mounts.py",
        "tests/health/conftest.py",
        "pyproject.toml",
    ):
        shutil.copy(ROOT / shared, copy.home / shared)
    tests = [path for path in blocks("Add a probe") if path.startswith("tests/")]
    copy.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
