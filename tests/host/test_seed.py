"""The seed of a host: created once, stored, readable by root only; and without storage."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paraglider.host import seed as module
from paraglider.host.seed import BITS, known_seed, machine_seed, steering_seed


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Each test is a process that has not read a seed yet."""
    module._machine_seed.cache_clear()
    yield
    module._machine_seed.cache_clear()


def again(file: Path) -> int:
    """The seed as a new process finds it."""
    module._machine_seed.cache_clear()
    return machine_seed(file=file)


def test_it_is_drawn_once_and_kept(tmp_path: Path) -> None:
    """Later processes read the stored seed; another host has another."""
    file, other = tmp_path / "here" / "seed", tmp_path / "there" / "seed"
    assert known_seed(file) is None
    drawn = machine_seed(file=file)
    assert 0 <= drawn < 1 << BITS
    assert (again(file), known_seed(file)) == (drawn, drawn)
    assert machine_seed(file=other) != drawn
    assert [path.name for path in file.parent.iterdir()] == ["seed"]


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """Neither the file nor its directory has permissions for others."""
    file = tmp_path / "made" / "seed"
    machine_seed(file=file)
    for place in (file, file.parent):
        assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0


def test_it_has_many_bits(tmp_path: Path) -> None:
    """Twenty seeds are all different, and about half of their bits are set."""
    drawn = {machine_seed(file=tmp_path / str(i) / "seed") for i in range(20)}
    assert len(drawn) == 20
    ones = sum(seed.bit_count() for seed in drawn)
    assert 0.4 < ones / (20 * BITS) < 0.6  # 7 standard deviations


def test_a_process_keeps_it_whatever_becomes_of_the_file(tmp_path: Path) -> None:
    """After a removal of the file, a reload uses the same seed."""
    file = tmp_path / "seed"
    drawn = machine_seed(file=file)
    file.unlink()
    assert machine_seed(file=file) == drawn
    assert not file.exists()


def test_two_at_once_agree(tmp_path: Path) -> None:
    """Processes that start together use one seed."""
    file = tmp_path / "seed"

    def draw(number: int) -> int:
        return module._store(file, number, replace=False)

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(draw, range(1, 65)))
    assert found == {known_seed(file)}


@pytest.mark.parametrize("text", ["", "x\n", "-1\n", "18446744073709551616\n", "9" * 5000, "٣"])
def test_a_damaged_file_is_replaced_with_a_warning(tmp_path: Path, text: str) -> None:
    """An invalid file is replaced with a warning, and nothing raises."""
    file = tmp_path / "seed"
    file.write_text(text)
    assert known_seed(file) is None
    said: list[str] = []
    drawn = machine_seed(said.append, file)
    assert known_seed(file) == drawn
    assert [f"{file} was damaged" in line for line in said] == [True]


def test_a_host_that_cannot_keep_it_has_one_from_its_id(tmp_path: Path) -> None:
    """The warning has the place and the remedy, and all processes compute the same seed."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    blocked.chmod(0o400)
    file = blocked / "seed"  # no directory can be made there
    said: list[str] = []
    seed = machine_seed(said.append, file)
    assert again(file) == seed
    assert [str(file) in line and "give the services a `seed`" in line for line in said] == [True]


def test_two_machine_ids_have_two_seeds(tmp_path: Path) -> None:
    """Two machine ids, two seeds; without one the boot id serves."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    other.write_text("3d1219c7c4c5404aaa1f6d2a48adfda5\n")
    assert module._unkept(one) == module._unkept(one) != module._unkept(other)
    assert 0 <= module._unkept(tmp_path / "none") < 1 << BITS


def test_the_kernels_seed_is_derived(tmp_path: Path) -> None:
    """32 bits derived from the seed, which do not reveal it."""
    file = tmp_path / "seed"
    file.write_text("7\n")
    assert steering_seed(None, file) == steering_seed(None, file) < 1 << 32
    other = tmp_path / "other"
    other.write_text("8\n")
    assert steering_seed(None, file) != steering_seed(None, other)
    assert steering_seed(None, file) != 7


def test_the_seed_of_the_configuration_comes_first(tmp_path: Path) -> None:
    """Then the host needs none of its own, and every host has the same."""
    file = tmp_path / "here" / "seed"
    assert steering_seed(7, file) == steering_seed(7, tmp_path / "there") == 3429787747
    assert not file.parent.exists()
