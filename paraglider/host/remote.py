"""Runs `paraglider` on other hosts by ssh, on all of them at once, each with the same deadline.

Lives here: ``Remote``, ``node_names``, ``Unreached`` and ``failures``.
Rules: ssh is run without a shell. sshd gives a command to the shell of its user, so each word is
quoted for that. A name that ssh could take for an option is refused. Output goes to files: a pipe
would stay open while a connection that ssh shares (ControlPersist) has it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, Any, Final

from paraglider.errors import OperatorError, PlatformError
from paraglider.netfilter.programs import find_program

#: ssh without questions, which nobody could answer for several hosts at once
SSH: Final = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5")
#: most hosts
MOST: Final = 64
#: most bytes of an answer, and of an error
LONGEST: Final = 64 << 20
_SHORT: Final = 4096
#: a host as ssh takes it, with a user or without; neither begins with "-"
_NODE: Final = re.compile(
    r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}@)?[A-Za-z0-9][A-Za-z0-9._:%-]{0,252}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Unreached:
    """Why a host gave no answer, in one line."""

    why: str


def node_names(text: str) -> tuple[str, ...]:
    """The hosts in ``text``, separated by commas; raises ``OperatorError``."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if not _NODE.fullmatch(name):
            raise OperatorError(f"{name!r} is no name of a host", "for example lb1,root@lb2")
        if names.count(name) > 1:
            raise OperatorError(f"{name} is named twice", "name each balancer once")
    if len(names) > MOST:
        raise OperatorError(f"{len(names)} hosts are too many", f"name {MOST} at most")
    return names


def _words(text: str, option: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise OperatorError(f"{option} {text!r}: {error}".lower(), "close the quotes") from None
    if not words:
        raise OperatorError(f"{option} is empty", "name a program")
    return words


@dataclass(frozen=True, slots=True)
class Remote:
    """How to run `paraglider` elsewhere: ``ssh`` is the local command, to which the host is added;
    ``program`` is the command there, ``seconds`` the deadline of all of it.
    """

    ssh: tuple[str, ...] = SSH
    program: tuple[str, ...] = ("paraglider",)
    seconds: float = 10.0

    @classmethod
    def of(cls, ssh: str | None, program: str, seconds: float) -> Remote:
        """From options, split as a shell would; raises ``OperatorError``."""
        local = SSH if ssh is None else _words(ssh, "--ssh")
        return cls(local, _words(program, "--program"), seconds)

    def ask(self, nodes: Iterable[str], words: Sequence[str]) -> dict[str, Any]:
        """Run `paraglider` with ``words`` on all ``nodes`` at once; returns the JSON that each
        printed, or ``Unreached``. Raises ``ParagliderError`` if ssh cannot be run here.
        """
        program = find_program(self.ssh[0])
        command = shlex.join((*self.program, *words))
        with ExitStack() as stack:
            due = time.monotonic() + self.seconds
            begun = {
                node: stack.enter_context(_run((program, *self.ssh[1:], node, command)))
                for node in nodes
            }
            return {node: run.answer(due, self.seconds) for node, run in begun.items()}


@dataclass(frozen=True, slots=True)
class _RemoteRun:
    """A program that runs, and the files that its output goes to."""

    process: subprocess.Popen[bytes]
    out: IO[bytes]
    err: IO[bytes]

    def answer(self, due: float, seconds: float) -> Any:
        """The JSON that it printed until ``due``, or ``Unreached``."""
        try:
            code = self.process.wait(max(0.0, due - time.monotonic()))
        except subprocess.TimeoutExpired:
            return Unreached(f"no answer within {seconds:g} s")
        if code != 0:
            said = _line(_read(self.err, _SHORT)) or _line(_read(self.out, _SHORT))
            return Unreached(said or f"exit code {code}")
        text = _read(self.out, LONGEST + 1)
        if len(text) > LONGEST:
            return Unreached("the answer is too long")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return Unreached(f"no JSON: {_line(text[:_SHORT])}")


@contextmanager
def _run(argv: Sequence[str]) -> Iterator[_RemoteRun]:
    """Start ``argv``; at the end it is killed, with all that it started, if it still runs."""
    with TemporaryFile() as out, TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, process_group=0
            )
        except OSError as error:
            raise PlatformError(f"{argv[0]} cannot be run: {error.strerror}") from None
        try:
            yield _RemoteRun(process, out, err)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _read(file: IO[bytes], most: int) -> bytes:
    """The beginning of ``file``; the program has moved its position."""
    file.seek(0)
    return file.read(most)


def _line(text: bytes) -> str:
    """``text`` as one line that a terminal shows as it is."""
    words = " ".join(text.decode(errors="replace").split())
    return "".join(each if each.isprintable() else "?" for each in words)[:300]


def failures(answers: Mapping[str, Any]) -> dict[str, str]:
    """The hosts of ``answers`` that gave none, and why."""
    return {node: each.why for node, each in answers.items() if isinstance(each, Unreached)}
