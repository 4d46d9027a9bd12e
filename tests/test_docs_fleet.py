"""docs/fleet.md: the playbook, the alerts, the rates, and the shares that move."""

from __future__ import annotations

import re
import shlex
import subprocess
from math import ceil
from pathlib import Path

import yaml
from click.testing import CliRunner

from paraglider.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")
BLOCKS = [
    yaml.safe_load(b) for b in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
]
MODULES = {"command", "apt", "pause"}


def is_a_command(words: list[str]) -> bool:
    """Whether `paraglider` has this command with these options."""
    return CliRunner().invoke(main, [*words, "--help"]).exit_code == 0


def test_the_playbook() -> None:
    """It is a play, balancer after balancer, whose commands the program has: drained before the
    upgrade, and announced after it is healthy.
    """
    ((play,),) = (block for block in BLOCKS if isinstance(block, list))
    assert (play["serial"], play["max_fail_percentage"], play["become"]) == (1, 0, True)
    done = []
    for task in play["tasks"]:
        (module,) = (key for key in task if key.startswith("ansible.builtin."))
        assert module.removeprefix("ansible.builtin.") in MODULES
        assert task["name"]
        words = re.sub(r"\{\{.*?\}\}", "lb1,lb2", str(task[module]))
        if module == "ansible.builtin.command":
            program, *given = shlex.split(words)
            assert program == "paraglider"
            assert is_a_command(given)
            assert not is_a_command([*given, "--nosuch"])
            words = " ".join(given)
        done.append(words)
    steps = ("fleet check", "node drain --wait", "'paraglider', 'state'", "health", "node ready")
    places = [next(n for n, each in enumerate(done) if step in each) for step in steps]
    assert places == sorted(places)


def test_the_rates_are_the_measured_ones() -> None:
    """Of the record in docs/performance.md, and the example follows from them."""
    performance = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    table = performance.partition("### CPU (")[2].partition("\n### ")[0]
    measured = {}
    for line in table.splitlines():
        if line.startswith("| ") and "s/GB" not in line and "---" not in line:
            name, *_, gigabyte, connections = (cell.strip() for cell in line.strip("|").split("|"))
            measured[name] = [float(each.split()[0]) for each in (connections, gigabyte)]
    rows = re.findall(r"^\| ([a-z, ]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for name, connections, gigabyte, rate in rows:
        assert [float(connections), float(gigabyte)] == measured[name]
        assert int(rate) == int(10_000 / float(connections)) // 10 * 10
    by_dsr = measured["dsr, compiled"]
    used = round(6 * by_dsr[0], 1), round(2 * by_dsr[1], 1)
    assert f"{used[0]} + {used[1]} = {sum(used):.1f} s" in PAGE
    assert ceil(sum(used) / (0.5 * 8)) == 3


def test_the_alerts(tmp_path: Path) -> None:
    """Prometheus takes the rules, and those of conf/ that the page names exist."""
    (rules,) = (block for block in BLOCKS if isinstance(block, dict) and "groups" in block)
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(rules))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = (ROOT / "conf" / "alerts.yml").read_text(encoding="utf-8")
    named = re.findall(r"`(Paraglider\w+)`", PAGE)
    assert len(named) >= 3
    assert all(f"alert: {name}\n" in alerts for name in named)
