"""Elements of real maps, in both builds: added once, read, removed; and what the kernel refuses."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paraglider.bpf import decisions, maps
from paraglider.bpf.elements import Elements, publish
from paraglider.bpf.syscall import HASH, NO_PREALLOC, create_map

pytestmark = pytest.mark.root

KEY, OTHER = b"k" * 12, b"o" * 12
KINDS: dict[str, Callable[[int, int, int], Any]] = {"interpreted": Elements, "chosen": maps.Map}


@pytest.fixture(params=sorted(KINDS))
def elements(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A hash of two elements, interpreted or as the build has it."""
    number = create_map(HASH, 12, 24, 2, flags=NO_PREALLOC, name="elements")
    yield KINDS[request.param](number, 12, 24)
    os.close(number)


def test_an_element_is_added_once(elements: Any) -> None:
    """A second insert changes nothing and returns EEXIST."""
    assert elements.get(KEY) is None
    assert elements.insert(KEY, b"1" * 24) == 0
    assert elements.insert(KEY, b"2" * 24) == errno.EEXIST
    assert elements.get(KEY) == b"1" * 24


def test_put_replaces(elements: Any) -> None:
    """``put`` adds an element, and replaces one."""
    elements.put(KEY, b"1" * 24)
    elements.put(KEY, b"2" * 24)
    assert elements.get(KEY) == b"2" * 24


def test_an_element_is_removed_once(elements: Any) -> None:
    """Removing what is not there is no error."""
    elements.insert(KEY, bytes(24))
    assert elements.delete(KEY) is True
    assert elements.delete(KEY) is False
    assert elements.get(KEY) is None


@pytest.mark.parametrize("present", [(), (0,), (1, 3), (0, 1, 2, 3)])
def test_some_are_removed_in_one_call(elements: Any, present: tuple[int, ...]) -> None:
    """Those that are not there are passed over; no key at all is nothing to do."""
    keys = [bytes([n]) * 12 for n in range(4)]
    for group in (present[:2], present[2:]):
        for number in group:
            assert elements.insert(keys[number], bytes(24)) == 0
        elements.delete_each([OTHER, *keys, OTHER])
        assert [elements.get(key) for key in keys] == [None] * 4
    elements.delete_each([])
    with pytest.raises(ValueError, match="a key has 12 bytes"):
        elements.delete_each([KEY, KEY[1:]])


def test_a_full_map_refuses(elements: Any) -> None:
    """Room for two: the third gets E2BIG, and the two stay."""
    elements.insert(KEY, b"1" * 24)
    elements.insert(OTHER, b"2" * 24)
    assert elements.insert(b"t" * 12, b"3" * 24) == errno.E2BIG
    with pytest.raises(OSError, match="too long"):
        elements.put(b"t" * 12, b"3" * 24)
    assert elements.get(KEY) == b"1" * 24
    assert elements.get(OTHER) == b"2" * 24


@pytest.mark.parametrize("size", [0, 11, 13, 36])
def test_a_key_of_another_size_never_reaches_the_kernel(elements: Any, size: int) -> None:
    """The kernel would read beyond it."""
    for call in (elements.get, elements.delete, lambda key: elements.insert(key, bytes(24))):
        with pytest.raises(ValueError, match="a key has 12 bytes"):
            call(bytes(size))


def test_a_value_of_another_size_never_reaches_the_kernel(elements: Any) -> None:
    """Neither by ``insert`` nor by ``put``."""
    for call in (elements.insert, elements.put):
        with pytest.raises(ValueError, match="a value has 24 bytes"):
            call(KEY, bytes(23))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_closed_descriptor_is_an_error(kind: str) -> None:
    """Not a missing element."""
    number = create_map(HASH, 12, 24, 2)
    elements = KINDS[kind](number, 12, 24)
    os.close(number)
    for call in (
        *(elements.get, elements.delete, lambda key: elements.put(key, bytes(24))),
        lambda key: elements.delete_each([key]),
    ):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call(KEY)
    assert elements.insert(KEY, bytes(24)) == errno.EBADF


@pytest.mark.parametrize("written", [publish, decisions.publish], ids=["interpreted", "chosen"])
def test_a_word_is_published(written: Any) -> None:
    """One of eight bytes, in mapped memory too, and none behind the last."""
    with mmap.mmap(-1, 32) as memory, memoryview(memory) as view, view.cast("Q") as words:
        written(words, 3, 2**64 - 1)
        written(words, 1, 5)
        assert list(words) == [0, 5, 0, 2**64 - 1]
        with pytest.raises(IndexError):
            written(words, 4, 1)
