"""Finding and running the host's programs."""

from __future__ import annotations

import pytest

from paraglider.errors import OperatorError, PlatformError
from paraglider.netfilter.programs import attempt, find_program, run


def test_the_sbin_directories_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary PATH lacks them, and iptables is there."""
    monkeypatch.setenv("PATH", "/nonexistent")
    assert find_program("iptables-save").endswith("/sbin/iptables-save")


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is the command that installs it."""
    monkeypatch.setattr("shutil.which", lambda *_args, **_options: None)
    with pytest.raises(OperatorError, match=r"nft is missing; .*apt-get install nftables"):
        find_program("nft")


def test_the_output_is_returned() -> None:
    """Standard input goes in, standard output comes out."""
    assert run(["cat"], "some text") == "some text"


def test_a_failure_has_the_programs_message() -> None:
    """The complaint is on one line, with the command."""
    with pytest.raises(PlatformError, match=r"^cat /nonexistent failed: .*No such file"):
        run(["cat", "/nonexistent"])


def test_an_attempt_does_not_raise() -> None:
    """A program that fails is no error by itself."""
    assert attempt(["false"]).returncode == 1
