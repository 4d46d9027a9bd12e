"""Tests of ``paraglider.config.importers.formats``: the samples with their whole output; other
files.

`samples/NAME` becomes `samples/NAME.conf`; the warnings are those lines in it that contain `line
N`.
"""

from __future__ import annotations

import contextlib
import random
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paraglider.config.importers.draft import MOST, Draft
from paraglider.config.importers.formats import FORMATS, draft_of
from paraglider.config.importers.render import render
from paraglider.config.load import ConfigError, accepted, parse
from paraglider.config.source import decoded, read

SAMPLES = Path(__file__).parent / "samples"
OF_FORMAT = {
    "loaded.config": "loaded",
    "loaded.config6": "loaded",
    "glider.yaml": "glider",
    "proxy.toml": "convey",
    "passthrough.toml": "convey",
    "ipvsadm.save": "ipvsadm",
}
LINE = re.compile(r"f:[1-9][0-9]*:[1-9][0-9]*: [^\n]+; [^\n]+")


def imported(text: str, name: str | None = None) -> tuple[str, Draft]:
    """The output for ``text`` and its draft, once it is known that `check` takes the output."""
    chosen, draft = draft_of(text, "f", name)
    config = accepted(draft, "f").config
    output = render(draft, "f", chosen.title)
    assert parse(output, "output").config == config
    return output, draft


@pytest.mark.parametrize(("sample", "name"), OF_FORMAT.items())
def test_samples(sample: str, name: str) -> None:
    """Each sample's format is detected by its content, and the output equals the file beside it,
    with every warning.
    """
    text = (SAMPLES / sample).read_text()
    output, draft = imported(text)
    assert draft_of(text, "f")[0] is FORMATS[name]
    assert output == (SAMPLES / f"{sample}.conf").read_text()
    for note in draft.notes:
        line = draft.marks.of(note).line
        assert f"# line {line}: {note.what}; {note.remedy}\n" in output
        assert note.remedy


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "f:1:1: the file is empty; name one of these: loaded, glider, convey, ipvsadm"),
        (" \n\t\n", "f:1:1: the file is empty"),
        ("hello\nworld\n", "f:1:1: this looks like none of these: loaded"),
        ("# services:\n\nservices:\n  - a\n", "f:1:1: this is a paraglider.conf already; use it"),
        ("\0\0\0", "f:1:1: this looks like none of these"),
        ("server4=" + "1" * 5000, "f:1:1: a line of 5008 characters is no line of loaded's"),
        ("frontend: &a [*a]\n", "f:1:11: sections are nested more than 32 deep"),
        ("frontend: [" * 2000, "f:1:"),
        ("frontend:\n" + "&a1" * 4, "f:"),
        ("[frontends]\nx = " + "[" * 900 + "]" * 0, "f:1:1: values are nested too deep"),
        ("[frontends]\nx = " + "9" * 900, "f:2:1: `x`: "),
    ],
)
def test_what_is_no_file_of_any(text: str, what: str) -> None:
    """Another file, garbage and bombs are refused by one message with a place."""
    with pytest.raises(ConfigError) as caught:
        imported(text)
    assert str(caught.value).startswith(what)
    assert all(LINE.match(line) for line in caught.value.lines)


def test_billion_laughs() -> None:
    """A YAML file that grows by its aliases is refused before it has grown."""
    lines = ["frontend:", "  a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(ConfigError, match="f:.*: the file has more than 250000 keys and values"):
        imported("\n".join(lines))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("text", ["", "x", "\0", "{", "[", "-A", "a=b\n[", "=\n=", "--", ": :"])
def test_garbage_by_name(text: str, name: str) -> None:
    """A named format refuses garbage with a place."""
    with pytest.raises(ConfigError) as caught:
        imported(text, name)
    assert caught.value.lines
    assert all(LINE.match(line) for line in caught.value.lines)


def test_large_file_takes_bounded_memory(tmp_path: Path) -> None:
    """Of a file of 100 MB no more than the bound is read."""
    file = tmp_path / "f"
    with file.open("wb") as stream:
        stream.truncate(100_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match=":1:1: the file is larger than 10 MB"):
            read(str(file))
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "line"), [("loaded", "rm -rf /x\n"), ("ipvsadm", "garbage\n"), ("ipvsadm", "-f 1\n")]
)
def test_lines_of_garbage_are_counted_not_listed(name: str, line: str) -> None:
    """A long file of nothing that is known ends after a thousand findings."""
    _, draft = draft_of(line * 50_000, "f", name)
    assert len(draft.problems) + len(draft.notes) <= MOST + 1


@settings(max_examples=200)
@given(st.binary(max_size=200), st.sampled_from([None, *FORMATS]))
def test_no_bytes_raise_anything_else(content: bytes, name: str | None) -> None:
    """With any content and any format: an output, or ConfigError."""
    with contextlib.suppress(ConfigError):
        imported(decoded(content, "f"), name)


WORDS = """
server4=10.0.0.1 VIP4=1.2.3.4 VIP6=::1 -A -a -t -u -r -w -p -m -g -i -s rr mh = [ ] [[ { } : - #
" ' \\ $ 0 1 -1 65536 99999999999999999999 ² true 1979-05-27 inf frontend: frontends backends addr
weight servers stats port passthrough workers 10.0.0.1:80 [::1]:80 é
"""
PIECES = (*WORDS.split(), "\n", "\n\n", " ", "\u2028", "\x0b")


@settings(max_examples=400)
@given(st.sampled_from(sorted(OF_FORMAT)), st.integers(0, 2**32), st.integers(1, 8))
def test_no_changed_sample_raises_anything_else(sample: str, seed: int, changes: int) -> None:
    """A sample with pieces cut out and put in is imported, or refused with lines that it has."""
    text, rng = (SAMPLES / sample).read_text(), random.Random(seed)
    for _ in range(changes):
        at, length = rng.randrange(len(text) + 1), rng.choice((0, 0, 1, 5, 40))
        text = text[:at] + rng.choice(("", *PIECES)) + text[at + length :]
    try:
        imported(text, OF_FORMAT[sample])
    except ConfigError as error:
        for line in error.lines:
            assert LINE.fullmatch(line)
            assert int(line.split(":")[1]) <= len(text.splitlines()) + 1
