"""Tests of ``paraglider.config.importers.shell``."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.importers.shell import commands, is_unknown


def words(script: str) -> list[str]:
    """The commands of ``script``, each as one line."""
    return [" ".join(command.words) for command in commands(script)]


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("a b\n\n  c", ["a b", "c"]),
        ("a 'b c' \"d  e\" f\\ g", ["a b c d  e f g"]),
        ("a # b\n#c\nd#e", ["a", "d#e"]),
        ("a; b && c || d | e & f", ["a", "b", "c", "d", "e", "f"]),
        ("a > f 2>&1 < g >>h", ["a"]),
        ("a \\\n  b", ["a b"]),
        ("if a; then b; else c; fi", ["a", "b", "c"]),
        ("case $1 in\nstart)\n a ;;\nstop) b;;\nesac", ["a", "b"]),
        ("X=1 Y=\"2 3\"\na $X ${Y} '$Z'", ["a 1 2 3 $Z"]),
        ("X=$Y\na $X", ["a $X"]),
        ("X=1\nX=`date`\na $X", ["a $X"]),
        ("export X=1\nlocal Y=$X\na $Y", ["a 1"]),
        ("A=10.0.0\nB=$A.1\na $B:80", ["a 10.0.0.1:80"]),
        ("for i in 1 2; do a $i; done\nb $i", ["a 1", "a 2", "b $i"]),
        ("for i in {3..1}\ndo\n a 10.0.0.$i\ndone", ["a 10.0.0.3", "a 10.0.0.2", "a 10.0.0.1"]),
        (
            "L='x y'\nfor i in $L; do for j in 1 2; do a $i$j; done; done",
            ["a x1", "a x2", "a y1", "a y2"],
        ),
        ("for i in $(seq 2); do a $i; done", ["a 1", "a 2"]),
        ("N=5\nfor i in `seq 4 $N`; do a $i; done", ["a 4", "a 5"]),
        ("for i in $(ls); do a $i; done", ["a $(ls)"]),
        ("i=3\na $((i-1)) $(( $i * 2 )) 10.0.0.$((i+10)) $((j+1))", ["a 2 6 10.0.0.13 $((j+1))"]),
        ("i=2\nfor s in x y; do a $s $i; i=$((i-1)); done", ["a x 2", "a y 1"]),
        ("[root@lvs ~]# a b\nme@host:~$ c\n$ d\n> e", ["a b", "c", "d", "e"]),
        ("it's\na b", ["it ' s", "a b"]),
        ("a <<EOF\n-b\nEOF", ["a", "-b", "EOF"]),
    ],
)
def test_commands(script: str, found: list[str]) -> None:
    """Words, quotes, comments, variables and loops are those of a shell."""
    assert words(script) == found


def test_places() -> None:
    """A command has the line and column of its first word."""
    script = "a\n  b; \\\n c 'd\n'\n[root@lvs ~]# e"
    places = [(*command.mark[:2], command.words[0]) for command in commands(script)]
    assert places == [(1, 1, "a"), (2, 3, "b"), (3, 2, "c"), (4, 1, "'"), (5, 15, "e")]


@pytest.mark.parametrize(
    "script",
    [
        "A=aaaaaaaaaa\n" + "A=$A$A\n" * 60 + "x $A",
        "for a in {1..1000}; do for b in {1..1000}; do for c in {1..1000}; do\nx\ndone; done; done",
        "for a in {1..1000}; do for b in {1..1000}; do for c in {1..1000}; do\ndone; done; done",
        "for a in 1; do " * 50_000,
        "for a in $(seq 99999); do x; done\n" * 20_000,
        "for a in {1..1000}; do x; done\n" * 20_000,
        "i=999999999\n" + "i=$((i*i))\n" * 50_000 + "x $i",
        "'" * 100_001,
        '"\\' * 100_000,
        "a\\\n" * 100_000,
    ],
)
def test_hostile_scripts_end(script: str) -> None:
    """Values that double, loops within loops and quotes without an end are bounded."""
    assert sum(1 for _ in commands(script)) <= 200_000


def test_loops_that_are_cut_are_named() -> None:
    """The loop itself is among the commands then, so that an importer says it."""
    script = "for a in {1..200}; do for b in {1..200}; do x $a $b; done; done"
    found = words(script)
    assert len(found) < 20_000
    assert "for b in {1..200}" in found


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"])), min_size=1
    )
)
def test_quoted_words_are_read_back(given_words: list[str]) -> None:
    """Words quoted as a shell needs them are the same words."""
    plain = [word.replace("$", "").replace("`", "") or "x" for word in given_words]
    (command,) = commands("echo " + " ".join(map(shlex.quote, plain)))
    assert list(command.words) == ["echo", *plain]


@given(st.text())
def test_any_text(text: str) -> None:
    """No text raises anything; a place is one in it."""
    for command in commands(text):
        assert command.words
        assert 1 <= command.mark.line <= text.count("\n") + 1


def test_unknown_words() -> None:
    """What a shell would replace is known as such."""
    assert [word for word in ("$A", "a`b`", "${A}", "a.b", "#") if is_unknown(word)] == [
        "$A",
        "a`b`",
        "${A}",
    ]
