"""`paraglider announce`: what it prints, what it refuses, and the process as ExaBGP starts it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import ILL, WELL, FakeDaemon
from waiting import wait_until

from paraglider.cli.errors import run_command
from paraglider.cli.main import main

WEB, SIX = "203.0.113.11", "2001:db8::11"
FILE = """\
control: {socket: SOCKET, announcer: USER}
announce: ANNOUNCE
services:
  - {name: web, vip: 203.0.113.11, protocol: tcp, ports: 80, forward: proxy, backends: [10.0.0.1]}
  - {name: six, vip: "2001:db8::11", protocol: tcp, ports: 80, forward: proxy, backends: ["f::1"]}
"""
BIRD = "{ill: withdraw, bird: {protocols: {4: p4, 6: p6}}}"


class Scene:
    """A file, and a daemon that tells once."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "paraglider.conf"
        self.daemon = FakeDaemon(directory / "control.sock")
        self._talking: list[threading.Thread] = []

    def write(self, announce: str, user: str = "root") -> list[str]:
        """The file has that section; returns the arguments that name it."""
        text = FILE.replace("SOCKET", str(self.daemon.path)).replace("USER", user)
        self.file.write_text(text.replace("ANNOUNCE", announce))
        return ["-c", str(self.file), "announce"]

    def tell(self, vips: dict[str, Any]) -> None:
        """To the next client."""

        def talk() -> None:
            self.daemon.accept()
            self.daemon.tell(vips, loads=1)

        self._talking.append(threading.Thread(target=talk))
        self._talking[-1].start()

    def close(self) -> None:
        """The end."""
        for one in self._talking:
            one.join()
        self.daemon.die()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """In a directory that all may enter."""
    directory = Path(tempfile.mkdtemp())  # pytest's own is root's alone
    directory.chmod(0o755)
    it = Scene(directory)
    yield it
    it.close()
    shutil.rmtree(directory)


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    """Run it; its exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as caught:
        run_command(main, "paraglider", arguments)
    said = capsys.readouterr()
    return caught.value.code, said.out, said.err


@pytest.mark.parametrize(
    ("announce", "way", "lines"),
    [
        (
            "{via: exabgp}",
            (),
            [
                "announce route 203.0.113.11/32 next-hop self med 100",
                "withdraw route 2001:db8::11/128 next-hop self",
            ],
        ),
        (BIRD, ("--bird",), ["enable p4", "disable p6"]),
        (
            "{via: bird, exec: [/bin/x, a b], bird: {protocols: {4: p4, 6: p6}}}",
            ("--exec",),
            [
                "/bin/x 'a b' 203.0.113.11 announce healthy",
                "/bin/x 'a b' 2001:db8::11 withdraw 'service web: no backend takes new flows'",
            ],
        ),
    ],
)
def test_a_dry_run(
    scene: Scene,
    announce: str,
    way: tuple[str, ...],
    lines: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Prints what would be said now, by the option or by the file."""
    announce = announce.replace("{via", "{ill: withdraw, via")
    scene.tell({WEB: WELL, SIX: ILL})
    code, out, err = run([*scene.write(announce), "--dry-run", *way], capsys)
    assert (code, out.splitlines(), err) == (0, lines, "")


@pytest.mark.parametrize(
    ("announce", "way", "error"),
    [
        ("null", ("--exabgp",), "the file has no `announce`, so no VIP is announced; add `anno"),
        ("{}", (), "give --exabgp, --bird or --exec, or write `via` under `announce`; see "),
        ("{}", ("--bird", "--exec"), "give --exabgp, --bird or --exec, one of them; see `parag"),
        ("{}", ("--bird",), "`announce` has no `bird`; add bird: {protocols: {4: NAME, 6: NAME"),
        ("{}", ("--exec",), "`announce` has no `exec`; add exec: [/etc/paraglider/announce]"),
    ],
)
def test_what_it_refuses(
    scene: Scene,
    announce: str,
    way: tuple[str, ...],
    error: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is said."""
    code, out, err = run([*scene.write(announce), *way], capsys)
    assert (code, out) == (1, "")
    assert err.startswith(f"paraglider: {error}")


def test_a_dry_run_without_a_daemon(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody knows what holds."""
    scene.daemon.die()
    code, out, err = run([*scene.write("{}"), "--exabgp", "--dry-run"], capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"paraglider: no paraglider answers at {scene.daemon.path}; start the")


class Started:
    """The command as ExaBGP starts it, with pipes."""

    def __init__(self, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "paraglider", *arguments]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def line(self) -> str:
        """The next line of standard output."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().decode().rstrip("\n")

    def ended(self) -> tuple[int, list[str]]:
        """The exit code, and the lines that were left; nothing went wrong."""
        out, errors = self.popen.communicate(timeout=60)
        assert b"Traceback" not in errors
        assert b"level=error" not in errors
        return self.popen.returncode, (out or b"").decode().splitlines()


WITHDRAWN = ["withdraw route 203.0.113.11/32 next-hop self"]


@pytest.mark.parametrize("ends", ["SIGTERM", "stdin", "stdout"])
def test_the_process(scene: Scene, ends: str) -> None:
    """It says what the daemon tells until it is ended, and withdraws everything then."""
    scene.tell({WEB: WELL})
    process = Started([*scene.write(f"{{rise: 0, vips: [{WEB}]}}"), "--exabgp"])
    assert process.line() == "announce route 203.0.113.11/32 next-hop self med 100"
    if ends == "SIGTERM":
        process.popen.send_signal(signal.SIGTERM)
    elif ends == "stdin":
        assert process.popen.stdin is not None
        process.popen.stdin.close()
        process.popen.stdin = None
    else:
        assert process.popen.stdout is not None
        process.popen.stdout.close()
        process.popen.stdout = None
    code, left = process.ended()
    assert code == 0
    assert left == ([] if ends == "stdout" else WITHDRAWN)


@pytest.mark.root
def test_it_has_no_privileges(scene: Scene) -> None:
    """Root's process becomes the announcer's user, without a capability, and connects as that."""
    scene.daemon.path.chmod(0o666)
    scene.tell({WEB: WELL})
    process = Started([*scene.write("{rise: 0}", "nobody"), "--exabgp"])
    assert process.line().startswith("announce")
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    fields = {line.split()[0]: line.split()[1:] for line in status.splitlines() if line.split()}
    assert fields["Uid:"] == ["65534"] * 4
    assert {fields[f"Cap{name}:"][0] for name in ("Prm", "Eff", "Bnd", "Inh")} == {"0" * 16}
    assert fields["NoNewPrivs:"] == ["1"]
    process.popen.send_signal(signal.SIGTERM)
    assert process.ended()[0] == 0


@pytest.mark.root
def test_root_without_capabilities(scene: Scene, tmp_path: Path) -> None:
    """The announcer may be root: a program is run as that."""
    note = tmp_path / "note"
    program = scene.file.with_name("program")
    program.write_text(f"#!/bin/sh\ngrep CapEff /proc/self/status > {note}\n")
    program.chmod(0o755)
    scene.tell({WEB: WELL})
    process = Started(scene.write(f"{{via: exec, rise: 0, exec: [{program}]}}"))
    wait_until(lambda: note.exists() and note.read_text().split() == ["CapEff:", "0" * 16])
    process.popen.send_signal(signal.SIGTERM)
    assert process.ended() == (0, [])
