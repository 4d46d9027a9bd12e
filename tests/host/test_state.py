"""The state file with the changes of a set-up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paraglider.errors import OperatorError, PlatformError
from paraglider.host import state as module
from paraglider.host.changes.base import Change
from paraglider.host.changes.links import AddressChange, NeighbourChange
from paraglider.host.changes.ruleset import RulesChange
from paraglider.host.changes.sysctls import ForwardingChange, SysctlChange
from paraglider.host.ownership import SET_UP, STARTED, owner_of
from paraglider.host.state import StateFile, setup_lock

CHANGES: list[Change] = [
    RulesChange(4, "*raw\nCOMMIT\n", {"raw": ["PREROUTING"]}, "saved"),
    RulesChange(6, "*raw\nCOMMIT\n", None),
    SysctlChange(4, "net/ipv4/conf/all/send_redirects", "1", "0"),
    ForwardingChange(6, {"net/ipv6/conf/default/forwarding": "0"}),
    AddressChange(6, "eth0", "2001:db8::11/64"),
    NeighbourChange(4, "eth1", "10.0.0.1", "02:00:00:00:00:01"),
]


def test_every_kind_of_change_comes_back_as_it_was(tmp_path: Path) -> None:
    """Loaded changes equal the stored ones, in the same order."""
    StateFile(tmp_path, 1).store(CHANGES)
    assert StateFile(tmp_path, 1).load() == CHANGES


def test_the_replaced_text_of_a_run_is_not_stored(tmp_path: Path) -> None:
    """Undoing removes the rules in any case; only the run itself can restore the replaced text."""
    StateFile(tmp_path, 1).store([RulesChange(4, "new", None, previous="old")])
    assert StateFile(tmp_path, 1).load() == [RulesChange(4, "new", None)]


def test_namespaces_have_files_of_their_own(tmp_path: Path) -> None:
    """/run is shared, so the cookie of the namespace is in the name."""
    StateFile(tmp_path, 0xA).store(CHANGES)
    assert StateFile(tmp_path, 0xB).load() == []
    assert [path.name for path in tmp_path.iterdir()] == ["setup-a.json"]


def test_no_changes_are_no_file(tmp_path: Path) -> None:
    """After the last undo nothing is left, and storing nothing twice is no error."""
    state = StateFile(tmp_path, 1)
    state.store(CHANGES)
    state.store([])
    state.store([])
    assert list(tmp_path.iterdir()) == []
    assert state.load() == []


def test_an_earlier_boot_left_nothing_to_undo(tmp_path: Path) -> None:
    """Rules and addresses end with the boot, and cookies are reused."""
    state = StateFile(tmp_path, 1)
    state.store(CHANGES)
    content = json.loads(state.path.read_text())
    state.path.write_text(json.dumps({**content, "boot": "another"}))
    assert state.load() == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1, "boot": 3, "chan', "\x00"])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, text: str) -> None:
    """The message names the file instead of a traceback."""
    state = StateFile(tmp_path, 1)
    state.path.write_text(text)
    with pytest.raises(OperatorError, match=r"setup-1\.json is damaged"):
        state.load()


def test_an_unknown_change_makes_a_file_damaged(tmp_path: Path) -> None:
    """A kind or a field that this version does not have is not guessed at."""
    state = StateFile(tmp_path, 1)
    state.store(CHANGES)
    for bad in ({"kind": "magic"}, {"kind": "address", "colour": "blue"}):
        content = json.loads(state.path.read_text())
        state.path.write_text(json.dumps({**content, "changes": [bad]}))
        with pytest.raises(OperatorError, match="is damaged"):
            state.load()


def test_another_version_is_not_damaged(tmp_path: Path) -> None:
    """A file of another version is not damaged; another program must undo it."""
    state = StateFile(tmp_path, 1)
    state.path.write_text('{"version": 99}')
    with pytest.raises(OperatorError, match="another version"):
        state.load()


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced as a whole or not at all, and no temporary file stays."""
    state = StateFile(tmp_path, 1)
    state.store(CHANGES)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(PlatformError, match="No space left"):
        state.store(CHANGES[:1])
    assert [path.name for path in tmp_path.iterdir()] == ["setup-1.json"]
    assert state.load() == CHANGES


def test_only_one_set_up_at_a_time(tmp_path: Path) -> None:
    """The second one is refused while the first is running; no file is left."""
    refused = pytest.raises(OperatorError, match="another set-up of paraglider")
    with setup_lock(tmp_path), refused, setup_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    with setup_lock(tmp_path):
        pass


def test_purposes_have_files_of_their_own(tmp_path: Path) -> None:
    """The changes of a backend's set-up are separate from the balancer's."""
    backend = StateFile(tmp_path, 1, purpose="backend")
    backend.store([SysctlChange(4, "net/ipv4/ip_forward", "0", "1")])
    assert backend.path.name == "backend-1.json"
    assert StateFile(tmp_path, 1).load() == []


def test_one_owner_a_namespace(tmp_path: Path) -> None:
    """Another command cannot read or change the state until it is undone."""
    mine, other = StateFile(tmp_path, 1), StateFile(tmp_path, 1, STARTED)
    other.store(CHANGES)
    assert owner_of(mine.path) == STARTED
    with pytest.raises(OperatorError, match="by `paraglider start`; .*: (sudo )?paraglider stop"):
        mine.load()
    assert other.load() == CHANGES
    other.store([])
    assert mine.load() == []
    mine.store(CHANGES)
    with pytest.raises(OperatorError, match=r"by `paraglider.config`; .* --undo"):
        other.load()


def test_what_is_noted_is_stored_at_once(tmp_path: Path) -> None:
    """Added at the end or replacing an equal identity, for the next reader; and dropped."""
    state, reader = StateFile(tmp_path, 1), StateFile(tmp_path, 1)
    first, again = SysctlChange(4, "a", "1", "0"), SysctlChange(4, "a", "2", "0")
    state.note(first)
    assert reader.load() == [first]
    assert owner_of(state.path) == SET_UP
    state.store(CHANGES)
    state.note(first)
    state.note(again)
    state.drop(CHANGES[0])
    assert reader.load() == [*CHANGES[1:], again]
    state.store(reader.load())
    assert [path.name for path in tmp_path.iterdir()] == ["setup-1.json"]
    assert reader.load() == [*CHANGES[1:], again]


def test_a_line_that_was_torn_off_is_of_nothing(tmp_path: Path) -> None:
    """The change of an incomplete line was not begun; a complete invalid line is damage."""
    state = StateFile(tmp_path, 1)
    state.note(CHANGES[2])
    state.note(CHANGES[3])
    state.journal.write_bytes(state.journal.read_bytes()[:-2])
    assert state.load() == [CHANGES[2]]
    state.journal.write_bytes(b"{}\n")
    with pytest.raises(OperatorError, match="is damaged"):
        state.load()


def test_a_journal_without_its_file_is_of_nothing(tmp_path: Path) -> None:
    """As one of an earlier boot."""
    state = StateFile(tmp_path, 1)
    state.note(CHANGES[2])
    state.path.unlink()
    assert state.load() == []
    StateFile(tmp_path, 1).note(CHANGES[3])
    assert state.load() == [CHANGES[3]]
    content = json.loads(state.path.read_text())
    state.path.write_text(json.dumps({**content, "boot": "another"}))
    assert state.load() == []


def test_a_note_costs_the_same_however_much_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand notes the file with all changes is written once, at the beginning."""
    written: list[int] = []
    replace = module.replace_file
    monkeypatch.setattr(
        module, "replace_file", lambda path, text: (written.append(len(text)), replace(path, text))
    )
    state = StateFile(tmp_path, 1)
    state.store(CHANGES)
    for number in range(1000):
        state.note(SysctlChange(4, f"key{number}", "1", "0"))
    assert len(written) == 1
    assert state.journal.stat().st_size < 1000 * 120
    assert len(state.load()) == len(CHANGES) + 1000
