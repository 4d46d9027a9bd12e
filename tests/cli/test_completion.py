"""Completion: scripts that the shells take, and that complete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from waiting import TIMEOUT

from paraglider.cli.completion import scripts, write


def test_a_script_a_shell_and_command(tmp_path: Path) -> None:
    """A script per shell and command, where Debian's shells read them."""
    write(tmp_path)
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert made == set(scripts())
    assert "bash-completion/completions/paraglider.config" in made
    assert (tmp_path / "zsh/vendor-completions/_paraglider").read_text().startswith("#compdef")
    assert "fish/vendor_completions.d/paraglider.fish" in made


def complete(tmp_path: Path, command: str, module: str, *words: str) -> list[str]:
    """bash's completions for the last of ``words`` by our script."""
    program = tmp_path / command
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
    program.chmod(0o755)
    script = scripts()[f"bash-completion/completions/{command}"]
    function = next(line for line in script.splitlines() if "complete -o" in line).split()[-2]
    asked = " ".join(f"'{word}'" for word in (command, *words))
    lines = (
        script,
        f"COMP_WORDS=({asked}) COMP_CWORD={len(words)}",
        f"{function} {command}",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    )
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT,
    )
    return done.stdout.split()


def test_commands_and_options_are_completed(tmp_path: Path) -> None:
    """Words of the program itself come back, for both commands."""
    assert complete(tmp_path, "paraglider", "paraglider", "ch") == ["check"]
    assert complete(tmp_path, "paraglider", "paraglider", "check", "--ho") == ["--host"]
    module = "paraglider.cli.setup_host"
    assert complete(tmp_path, "paraglider.config", module, "--un") == ["--undo"]
