"""Tests of ``paraglider.health.codes``: the codes are HAProxy's."""

from __future__ import annotations

from paraglider.health.codes import Code

#: management guide, section 9.1, check_status; less those of checks that there are none of here
HAPROXY = {
    *("UNK", "INI", "SOCKERR", "PROCERR", "PROCTOUT", "PROCOK"),
    *("L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP"),
    *("L7TOUT", "L7RSP", "L7OK", "L7OKC", "L7STS"),
}


def test_every_code_is_one_of_haproxys() -> None:
    """The page, the CSV and the log contain the name of the code."""
    assert {code.value for code in Code} <= HAPROXY
    assert all(str(code) == code.name for code in Code)


def test_every_layer_can_pass_and_time_out() -> None:
    """A probe of the layer has a code for either."""
    layers = {code.removesuffix("OK") for code in Code if code.endswith("OK")}
    assert layers == {"L4", "L6", "L7", "PROC"}
    assert {f"{layer}TOUT" for layer in layers} <= set(Code)
