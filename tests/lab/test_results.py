"""Counting the answers of backends, and evaluating the counts."""

from __future__ import annotations

from rich.console import Console

from paraglider.lab.results import ResultRow, count_answers, parse_echos, table

SNMP = """\
Ip: Forwarding DefaultTTL
Ip: 1 64
Icmp: InMsgs InErrors InEchos
Icmp: 12 0 7
Tcp: RtoAlgorithm
Tcp: 1
Icmp6InMsgs                     	30
Icmp6InEchos                    	9
Udp6InDatagrams                 	4
"""


def output(*answers: str) -> str:
    """The client's output for these answers."""
    return "".join(f'{{"answer": "{answer}"}}\n' for answer in answers)


def test_answers_are_counted_a_backend() -> None:
    """Each backend has its own count, in order, and a silent one has zero."""
    row = count_answers("tcp", 4, output("backend3", "backend1", "backend3"), 3)
    assert row.counts == (1, 0, 2)
    assert not row.errors


def test_errors_and_unknown_servers_are_counted() -> None:
    """A failed try and an answer of an unknown server are errors of the row."""
    text = output("stranger") + '{"error": "timed out"}\n' * 2
    row = count_answers("udp", 6, text, 2)
    assert row.errors == {"timed out": 2, "answer from 'stranger', which is not a backend": 1}


def test_an_even_share_has_no_fault() -> None:
    """Ten for each of three is round robin with one worker."""
    assert ResultRow("tcp", 4, (10, 10, 10)).faults(workers=1) == []


def test_one_worker_must_share_exactly() -> None:
    """11/10/9 is a fault with one worker and possible with two."""
    row = ResultRow("tcp", 4, (11, 10, 9))
    assert row.faults(workers=1) == [
        "TCP (HTTP) over IPv4: shared 11/10/9, which is not round robin"
    ]
    assert row.faults(workers=2) == []


def test_a_remainder_is_no_fault() -> None:
    """31 over three backends is 11/10/10, and that is even."""
    assert ResultRow("tcp", 4, (11, 10, 10)).faults(workers=1) == []


def test_a_silent_backend_is_a_fault() -> None:
    """A backend that never answered is named, for any number of workers."""
    faults = ResultRow("ping", 6, (3, 0, 3)).faults(workers=8)
    assert faults == ["ICMP echo over IPv6: no answer from backend2"]


def test_errors_are_faults() -> None:
    """Each kind of error is named with its count."""
    row = count_answers("udp", 4, output("backend1") + '{"error": "timed out"}\n' * 2, 1)
    assert row.faults(workers=1) == ["UDP (echo) over IPv4: 2× timed out"]


def test_echo_counters_are_read_from_the_kernel_text() -> None:
    """InEchos for IPv4, Icmp6InEchos for IPv6."""
    assert parse_echos(SNMP, 4) == 7
    assert parse_echos(SNMP, 6) == 9


def test_the_table_shows_counts_and_failures() -> None:
    """Every row is shown with a count a backend and the number of failures."""
    console = Console(width=100, record=True, quiet=False, file=None)
    with console.capture() as captured:
        console.print(table([count_answers("tcp", 4, output("backend1", "backend2"), 2)], 2))
    lines = captured.get().splitlines()
    (line,) = [line for line in lines if "TCP (HTTP) over IPv4" in line]
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["1", "1", "0"]
