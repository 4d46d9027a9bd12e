"""Python and the program agree about every byte: ``layout.py`` is compared with ``layout.h``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import paraglider.bpf
from paraglider.bpf import layout, syscall
from paraglider.bpf.maps import SHAPES

HEADER = Path(paraglider.bpf.__file__).with_name("layout.h").read_text(encoding="utf-8")
CODE = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)
SIZES = {"__u8": 1, "__u16": 2, "__be16": 2, "__u32": 4, "__be32": 4, "__u64": 8}


def body(kind: str, name: str) -> str:
    """What stands between the braces of a struct or enum."""
    found = re.search(rf"{kind} {name} \{{\n(.*?)\n\}};", CODE, re.DOTALL)
    assert found is not None, name
    return found[1]


def fields(name: str) -> list[tuple[str, int, int]]:
    """The fields of a struct: name, size of an element, number of elements; of a union the first,
    which is its largest.
    """
    text = re.sub(r"union \{\s*(.*?;).*?\};", r"\1", body("struct", name), flags=re.DOTALL)
    found = []
    for declared in re.findall(r"([^;]+);", text):
        kind, _, names = declared.strip().partition(" ")
        if kind == "struct":
            inner, _, names = names.partition(" ")
            found.append((names, size(inner), 1))
            continue
        for one in names.split(","):
            name, _, count = one.strip().partition("[")
            found.append((name, SIZES[kind], int(count.rstrip("]") or 1)))
    return found


def size(name: str) -> int:
    """The size of a struct, which must have no holes."""
    offset = 0
    for field, element, count in fields(name):
        assert offset % min(element, 4) == 0, f"{name}.{field} is not aligned"
        offset += element * count
    return offset


def enum(name: str) -> dict[str, int]:
    """The names of an enum and their numbers."""
    found: dict[str, int] = {}
    for entry in body("enum", name).split(","):
        label, _, value = entry.strip().partition(" = ")
        if label:
            found[label] = int(value) if value else len(found)
    return found


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("key4", layout.KEY4),
        ("key6", layout.KEY6),
        ("flow", layout.FLOW),
        ("translation", layout.TRANSLATION),
        ("origin", layout.ORIGIN),
        ("service", layout.SERVICE),
        ("decision", layout.DECISION),
        ("steering", layout.STEERING),
        ("traffic", layout.TRAFFIC),
        ("event", layout.EVENT),
    ],
)
def test_structures_have_their_sizes(name: str, form: object) -> None:
    """Each struct has the size of its format."""
    assert size(name) == form.size  # type: ignore[attr-defined]


def test_the_fields_of_a_flow_stand_where_python_has_them() -> None:
    """An entry's numbers come out in the order of the struct's fields."""
    names = ["seen", "flags", "ack", "translation", "owner", "packets_out", "packets_back"]
    assert [name for name, _, _ in fields("flow")] == names
    letters = {2: "H", 4: "I"}
    assert "=" + "".join(letters[element] for _, element, _ in fields("flow")) == layout.FLOW.format


def test_the_fields_of_a_decision_stand_where_python_has_them() -> None:
    """A record's numbers come out in the order of the struct's fields, and the holes are named."""
    letters = {1: "B", 4: "I", 8: "Q"}
    found = "".join(
        "8s"
        if name == "name"
        else f"{count}x"
        if name in ("unused", "spare")
        else letters[element] * count
        for name, element, count in fields("decision")
    )
    assert "=" + found == layout.DECISION.format
    assert size("slots") == layout.ROW_SLOTS * layout.SLOT.size


def test_flags_states_and_events_have_their_numbers() -> None:
    """Every name of the enums is a constant here with the same number."""
    for name in (
        "flow_flag",
        "method",
        "translation_state",
        "event_kind",
        "decision_kind",
        "decision_flag",
    ):
        numbers = enum(name)
        assert numbers
        assert {label: getattr(layout, label) for label in numbers} == numbers


def test_reasons_have_their_names_in_order() -> None:
    """The index of a name is the number of its reason."""
    reasons = enum("reason")
    assert reasons.pop("REASONS") == len(layout.REASONS) <= layout.COUNTERS
    assert tuple(label.lower() for label in reasons) == layout.REASONS


@pytest.mark.parametrize(
    "name",
    [
        *("LAYOUT_VERSION", "TICK_SHIFT", "TRANSLATIONS", "ORIGINS", "FLOWS", "RINGS", "COUNTERS"),
        *("RING_BYTES", "SERVICES", "DECISIONS", "TABLE_ROWS"),
    ],
)
def test_sizes_are_the_same(name: str) -> None:
    """Each number that both define is the same."""
    found = re.search(rf"#define {name} (.*)", CODE)
    assert found is not None
    shifted = re.fullmatch(r"\(1U << (\d+)\)", found[1].strip())
    assert getattr(layout, name) == (1 << int(shifted[1]) if shifted else int(found[1]))


def test_maps_have_their_shapes() -> None:
    """Every map of the program is made here with the same type, sizes, entries and flags."""

    def bytes_of(kind: str) -> int:
        return SIZES[kind] if kind in SIZES else size(kind.removeprefix("struct "))

    def number(text: str) -> int:
        return int(text) if text.isdigit() else int(getattr(layout, text))

    found: dict[str, syscall.MapInfo] = {}
    for arguments in re.findall(r"^HASH_MAP\((.*)\);", CODE, re.MULTILINE):
        name, entries, key, value = arguments.split(", ")
        room = getattr(layout, entries)
        sizes = (bytes_of(key), bytes_of(value), room)
        found[name] = syscall.MapInfo(syscall.HASH, *sizes, syscall.NO_PREALLOC)
    for arguments in re.findall(r"^ARRAY_MAP\((.*)\);", CODE, re.MULTILINE):
        name, kind, entries, value = arguments.split(", ")
        sizes = (SIZES["__u32"], bytes_of(value), number(entries))
        found[name] = syscall.MapInfo(
            getattr(syscall, kind.removeprefix("BPF_MAP_TYPE_")), *sizes, 0
        )
    for arguments in re.findall(r"^MEMORY_MAP\((.*)\);", CODE, re.MULTILINE):
        name, entries, value = arguments.split(", ")
        sizes = (SIZES["__u32"], bytes_of(value), number(entries))
        found[name] = syscall.MapInfo(syscall.ARRAY, *sizes, syscall.MMAPABLE)
    assert "max_entries, RINGS" in CODE
    rings = syscall.MapInfo(syscall.ARRAY_OF_MAPS, 4, 4, layout.RINGS, 0)
    assert {**found, "rings": rings} == SHAPES
