"""Fuzzing: the corpus, in the build that is used, and a hundred new inputs a target.

``scripts/fuzz SECONDS`` goes on for as long as is wanted. A crash found belongs into ``corpus``.
"""

from __future__ import annotations

import importlib.util
import os
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
    """And no corpus is of nothing."""
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is for x86_64")
def test_new_inputs(tmp_path: Path) -> None:
    """Inputs that coverage leads to, the same number each time, find no fault in any target."""

    def fuzz(name: str) -> tuple[str, int, str]:
        command = [sys.executable, str(HERE / "run.py"), name, f"-runs={RUNS}", "-seed=1"]
        command += ["-max_len=2048", "-timeout=60", f"-artifact_prefix={tmp_path}/{name}-"]
        environment = {**os.environ, "PARAGLIDER_PURE": "1"}
        own = tmp_path / name
        own.mkdir()
        done = subprocess.run(
            [*command, str(own), str(CORPUS / name)],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=500,
        )
        return name, done.returncode, done.stdout[-2000:] + done.stderr[-3000:]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(fuzz, TARGETS))
    assert [(name, output) for name, status, output in results if status] == []
    assert all(f"Done {RUNS} runs" in output for _, _, output in results)
