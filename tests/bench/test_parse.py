"""The output of wrk, iperf3 and /proc becomes figures; other output is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import parse

SAMPLES = Path(__file__).parent / "samples"


def read(name: str) -> str:
    """Recorded output of a real program."""
    return (SAMPLES / name).read_text(encoding="utf-8")


def test_wrk_total() -> None:
    """Requests and time are those of the line with the total."""
    run = parse.wrk(read("wrk-connections.txt"))
    assert (run.requests, run.seconds, run.failed) == (5385, 1.07, 0)
    assert run.rate == pytest.approx(5385 / 1.07)
    assert run.percentiles == {}


def test_wrk_percentiles_are_microseconds() -> None:
    """In any unit of wrk, latencies are converted to microseconds."""
    run = parse.wrk(read("wrk-latency.txt"))
    assert run.percentiles == {50: 32.0, 75: 625.0, 90: 2300.0, 99: 4890.0}


@pytest.mark.parametrize(
    ("line", "seconds"),
    [("8 requests in 2.50m, 1KB read", 150.0), ("8 requests in 500.00ms, 1KB read", 0.5)],
)
def test_wrk_time_in_other_units(line: str, seconds: float) -> None:
    """A long or very short run prints its time in another unit."""
    assert parse.wrk(line).seconds == pytest.approx(seconds)


def test_wrk_failures_are_counted() -> None:
    """Socket errors of every kind and refusing answers are summed."""
    text = (
        "  100 requests in 1.00s, 1KB read\n"
        "  Socket errors: connect 1, read 20, write 300, timeout 4000\n"
        "  Non-2xx or 3xx responses: 50000\n"
    )
    assert parse.wrk(text).failed == 54_321


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unable to connect to 192.168.0.11:80 Connection refused\n", "Connection refused"),
        ("  0 requests in 1.00s, 0.00B read\n", "no answer at all"),
    ],
)
def test_wrk_without_answers_is_no_figure(text: str, words: str) -> None:
    """A run without answers is an error with the reason, not a rate of 0."""
    with pytest.raises(ValueError, match=words):
        parse.wrk(text)


def test_iperf3_counts_what_was_received() -> None:
    """For TCP the figure is the receiver's."""
    document = json.loads(read("iperf3-down.json"))
    transfer = parse.iperf3(read("iperf3-down.json"))
    assert transfer.received == document["end"]["streams"][0]["receiver"]["bytes"]
    assert transfer.gbits == pytest.approx(
        document["end"]["streams"][0]["receiver"]["bits_per_second"] / 1e9
    )


def test_iperf3_udp_leaves_out_what_was_lost() -> None:
    """For UDP lost datagrams are not counted."""
    end = json.loads(read("iperf3-udp.json"))["end"]
    assert end["sum"]["lost_packets"] > 0
    transfer = parse.iperf3(read("iperf3-udp.json"))
    assert transfer.received <= (end["sum"]["packets"] - end["sum"]["lost_packets"]) * 64
    assert transfer.received == end["sum_received"]["bytes"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ('{"end": {}, "error": "unable to connect to server"}', "unable to connect"),
        ('{"end": {}}', "no sum"),
        ('{"end": {"sum_received": {"bytes": 0, "seconds": 1}}}', "nothing was received"),
    ],
)
def test_iperf3_that_failed_is_no_figure(text: str, words: str) -> None:
    """Any failure is an error with the reason."""
    with pytest.raises(ValueError, match=words):
        parse.iperf3(text)


def test_process_ticks_with_an_odd_name() -> None:
    """User and system time are found behind a name with spaces and parentheses."""
    stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 70 30 5 6 20 0 1 0 100 0 0"
    assert parse.process_ticks(stat) == 100


def test_process_ticks_of_something_else() -> None:
    """Other text than /proc/PID/stat is refused."""
    with pytest.raises(ValueError, match="no /proc/PID/stat"):
        parse.process_ticks("nonsense")


def test_busy_ticks() -> None:
    """Idle and waiting are no work; interrupts and stolen time are."""
    assert parse.busy_ticks("cpu  1 2 4 1000 2000 8 16 32 0 0\ncpu0 1 2 3\n") == 63
    with pytest.raises(ValueError, match="no /proc/stat"):
        parse.busy_ticks("intr 1 2 3")


def test_interrupt_ticks() -> None:
    """Only interrupts and softirqs."""
    assert parse.interrupt_ticks("cpu  1 2 4 1000 2000 8 16 32 0 0\n") == 24


def test_cgroup_usage() -> None:
    """The microseconds of a control group are on a line of their own."""
    assert parse.cgroup_usage("user_usec 1\nusage_usec 1234\nsystem_usec 2\n") == 1234
    with pytest.raises(ValueError, match=r"no cpu\.stat"):
        parse.cgroup_usage("nr_periods 0\n")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("HAProxy version 2.6.12-1+deb12u4 2026/01/01 - https://", "2.6.12-1+deb12u4"),
        ("nginx version: nginx/1.22.1\n", "1.22.1"),
        ("iptables v1.8.9 (nf_tables)\n", "1.8.9"),
        ("no numbers", "unknown"),
    ],
)
def test_version(text: str, version: str) -> None:
    """The first version number in a program's output."""
    assert parse.version(text) == version


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "/x/p.conf:9:12: `forward: offload` is not in this version; use nat\n",
            "offload is not in",
        ),
        ("paraglider: no root; use sudo\n", "no root"),
        ("", "refuses it"),
    ],
)
def test_refusal_is_in_few_words(text: str, words: str) -> None:
    """File, line and remedy of ``paraglider check``'s output are left out."""
    found = parse.refusal(text)
    assert words in found
    assert "p.conf" not in found
    assert "use" not in found.replace("refuses", "")
