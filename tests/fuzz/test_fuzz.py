"""Fuzzing: the corpus, in the build that is used, and a hundred new inputs a target.

``scripts/fuzz SECONDS`` goes on for as long as is wanted. A crash found belongs into ``corpus``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from targets import TARGETS

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
INPUTS = sorted(path for path in CORPUS.rglob("*") if path.is_file())
RUNS = 120


@pytest.mark.parametrize("path", INPUTS, ids=[str(p.relative_to(CORPUS)) for p in INPUTS])
def test_corpus(path: Path) -> None:
    """Every input that was ever interesting is taken without an error, whole and cut."""
    data = path.read_bytes()
    for end in (len(data), len(data) // 2, len(data) - 1):
        TARGETS[path.parent.name](data[:end])


def test_every_target_has_a_corpus() -> None:
    """And every corpus has a target."""
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is for x86_64")
def test_new_inputs(tmp_path: Path) -> None:
    """Inputs that coverage leads to, the same number each time, find no fault in any target."""

    def fuzz(names: list[str]) -> tuple[int, str]:
        command = [sys.executable, str(HERE / "run.py"), ",".join(names), f"-runs={RUNS}"]
        command += ["-seed=1", "-max_len=2048", "-timeout=60"]
        command += [f"-artifact_prefix={tmp_path}/{{}}-", f"{tmp_path}/{{}}", f"{CORPUS}/{{}}"]
        done = subprocess.run(
            command,
            env={**os.environ, "PARAGLIDER_PURE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=800,
        )
        return done.returncode, done.stdout

    for name in TARGETS:
        (tmp_path / name).mkdir()
    names = list(TARGETS)
    halves = [names[::2], names[1::2]]  # a process each, which imports and instruments once
    with ThreadPoolExecutor(2) as pool:
        for half, (status, output) in zip(halves, pool.map(fuzz, halves), strict=True):
            assert status == 0, output[-5000:]
            assert re.findall(r"^target (\w+)$", output, re.MULTILINE) == half
            assert output.count(f"\nDone {RUNS} runs") == len(half), output[-5000:]
