"""Tests of ``paraglider.core.client_hello``: any bytes, in pieces of any size."""

from __future__ import annotations

import pytest
from hellos import body, hello, message, of_openssl, protocols, records, server_name, vector
from hypothesis import given
from hypothesis import strategies as st

from paraglider.core.client_hello import MOST, Hello, HelloReader, parse, plain_name

NAME = server_name(b"www.a.example")


def read(data: bytes, sizes: list[int] | None = None) -> HelloReader:
    """A reader that has taken ``data`` in pieces of ``sizes``, and then the rest."""
    reader = HelloReader()
    for size in sizes or ():
        if reader.feed(data[:size]):
            return reader
        data = data[size:]
    reader.feed(data)
    return reader


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("name", [None, "www.a.example", "WWW.A.Example"])
@pytest.mark.parametrize("alpn", [(), ("h2", "http/1.1")])
def test_clients_of_openssl(version: str, name: str | None, alpn: tuple[str, ...]) -> None:
    """What a real client sends, whole, and byte by byte: it is known with its last byte."""
    data = of_openssl(name, alpn, version)
    expected = Hello("www.a.example" if name else "", alpn)
    assert read(data).hello == expected
    reader = HelloReader()
    done = [reader.feed(data[at : at + 1]) for at in range(len(data))]
    assert done == [False] * (len(data) - 1) + [True]
    assert reader.hello == expected


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_a_hello_in_many_records(size: int) -> None:
    """A message may be split over records (RFC 8446 §5.1), down to a byte each."""
    data = hello(NAME, protocols(b"h2", b"http/1.1"), size=size)
    assert read(data).hello == Hello("www.a.example", ("h2", "http/1.1"))


def test_nothing_matters_behind_it() -> None:
    """Early data, or a second message in the same record."""
    data = records(message(body(NAME)) + b"\x01\0\0\0") + b"\x17\x03\x03\0\x05early"
    assert read(data).hello == Hello("www.a.example")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"www.a.example.", "www.a.example"),
        (b"xn--BCHER-KVA.example", "xn--bcher-kva.example"),
        (b"a" * 256, ""),
        (b"b\xc3\xbccher.example", ""),
        (b"", ""),
    ],
    ids=["dot", "case", "long", "UTF-8", "empty"],
)
def test_names(name: bytes, expected: str) -> None:
    """The name in lower case without the last dot; empty if it is none of the DNS."""
    assert read(hello(server_name(name))).hello == Hello(expected)


def test_encrypted_client_hello() -> None:
    """The name is that of the outer ClientHello; the extension, 0xfe0d, is not looked into."""
    data = hello(server_name(b"public.example"), (0xFE0D, bytes(200)))
    assert read(data).hello == Hello("public.example")


def test_no_extensions() -> None:
    """TLS 1.2 allows a ClientHello that ends before them (RFC 5246 §7.4.1.2)."""
    assert parse(body()[:-2]) == parse(body()) == Hello()


NO_NAME_TWICE = server_name(b"a", b"b")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        body(NAME)[:-1],
        body(NAME) + b"\0",
        body(NAME, NAME),
        body(NO_NAME_TWICE),
        body((0, b"")),
        body((0, vector(b"", 2))),
        body((0, NAME[1] + b"\0")),
        body(protocols()),
        body(protocols(b"")),
        body((16, vector(b"\x05h2", 2))),
        body()[:34] + b"\xff",
    ],
    ids=lambda data: data[-12:].hex(),
)
def test_malformed(data: bytes) -> None:
    """A length that leads outside, what stands twice, and empty lists."""
    assert parse(data) is None
    reader = read(records(message(data)))
    assert (reader.hello, reader.done) == (None, True)


@pytest.mark.parametrize(
    ("data", "after"),
    [
        (b"GET / HTTP/1.1\r\n", 1),
        (b"SSH-2.0-x\r\n", 1),
        (b"\x80\x2e\x01\x03\x01", 1),  # SSL 2.0
        (b"\x16\x02", 2),
        (b"\x16\x03\x01\0\0", 5),  # an empty record
        (b"\x16\x03\x01\x40\x01", 5),  # one that is too long
        (b"\x15\x03\x01\0\x02\x01\0", 1),  # an alert
        (b"\x16\x03\x01\0\x04\x02\0\0\0", 6),  # a ServerHello
        (b"\x16\x03\x01\0\x04\x01\xff\xff\xff", 9),  # 16 MB
    ],
)
def test_something_else(data: bytes, after: int) -> None:
    """It is known with the first byte that is not of a ClientHello."""
    reader = HelloReader()
    assert [reader.feed(data[at : at + 1]) for at in range(after)] == [False] * (after - 1) + [True]
    assert reader.hello is None


def test_the_bound() -> None:
    """16 KiB with the headers of records, of which one byte more is too much."""
    rest = MOST - len(hello((21, b"")))
    fits, larger = hello((21, bytes(rest))), hello((21, bytes(rest + 1)))
    assert len(fits) == MOST
    assert read(fits).hello == Hello()
    reader = read(larger)
    assert (reader.hello, reader.done) == (None, True)
    many = HelloReader()
    assert many.feed(hello((21, bytes(MOST // 2)), size=1)[:MOST])
    assert many.hello is None


@given(st.binary(max_size=300), st.lists(st.integers(0, 20)))
def test_any_bytes(data: bytes, sizes: list[int]) -> None:
    """Pieces do not matter; nothing is raised."""
    for start in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x01\0\x01\0\0\xf0"):
        whole, pieces = read(start + data), read(start + data, sizes)
        assert (whole.done, whole.hello) == (pieces.done, pieces.hello)
    parse(data)


@given(
    st.text("abc.-XYZ", min_size=1, max_size=40),
    st.lists(st.binary(min_size=1, max_size=8), max_size=4),
    st.lists(st.tuples(st.integers(100, 60000), st.binary(max_size=20)), unique_by=lambda e: e[0]),
    st.integers(1, 200),
    st.lists(st.integers(1, 40), max_size=300),
)
def test_any_hello(
    name: str,
    offered: list[bytes],
    others: list[tuple[int, bytes]],
    size: int,
    sizes: list[int],
) -> None:
    """Name and protocols are found among other extensions, in any records and pieces."""
    extensions = [*others, server_name(name.encode()), *([protocols(*offered)] if offered else ())]
    found = read(hello(*extensions, size=size), sizes).hello
    assert found == Hello(plain_name(name), tuple(each.decode("latin-1") for each in offered))


@given(st.data())
def test_a_hello_that_is_damaged(data: st.DataObject) -> None:
    """One byte of a real one is another: a ClientHello or none, and no error."""
    whole = bytearray(of_openssl("www.a.example", ("h2",)))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(whole))
