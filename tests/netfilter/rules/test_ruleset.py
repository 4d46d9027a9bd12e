"""The input that changes the kernel's rules to the wanted rule set."""

from __future__ import annotations

from paraglider.netfilter.rules.ruleset import Chain, RuleSet, Table, joined, restore_text

WANTED = RuleSet(
    4,
    (
        Table(
            "raw",
            (
                Chain("PARAGLIDER", "why", ("-p tcp -g PARAGLIDER-NOTRACK",)),
                Chain("PARAGLIDER-NOTRACK", "why not", ("-j CT --notrack",)),
            ),
            (("PREROUTING", "PARAGLIDER"),),
        ),
    ),
).text()


def test_an_untouched_host_gets_the_whole_text() -> None:
    """Without any of our chains, the whole text is used."""
    assert restore_text(WANTED, "") == WANTED


def test_a_jump_that_is_there_stays_where_it_is() -> None:
    """The rules are refilled without a second jump."""
    saved = "*raw\n:PREROUTING ACCEPT [0:0]\n:PARAGLIDER - [0:0]\n-A PREROUTING -j PARAGLIDER\n"
    text = restore_text(WANTED, saved)
    assert "-I " not in text
    assert "-D " not in text
    assert ":PARAGLIDER - [0:0]" in text


def test_a_lost_jump_comes_back() -> None:
    """After a flush of the built-in chain only the jump is added."""
    text = restore_text(WANTED, "*raw\n:PARAGLIDER - [0:0]\nCOMMIT\n")
    assert text.count("-I PREROUTING 1 -j PARAGLIDER\n") == 1


def test_stale_chains_and_jumps_go() -> None:
    """Chains of an older version in the same table are removed in the same run."""
    saved = (
        "*raw\n:OUTPUT ACCEPT [0:0]\n:PARAGLIDER - [0:0]\n:PARAGLIDER-OLD - [0:0]\n"
        "-A OUTPUT -j PARAGLIDER-OLD\nCOMMIT\n"
    )
    lines = restore_text(WANTED, saved).splitlines()
    gone = ["-D OUTPUT -j PARAGLIDER-OLD", "-F PARAGLIDER-OLD", "-X PARAGLIDER-OLD"]
    assert [line for line in lines if "OLD" in line] == gone
    assert "-X PARAGLIDER" not in lines


def test_stale_tables_are_cleared() -> None:
    """Chains of an older version in a table that is no longer used are removed too."""
    saved = "*nat\n:PARAGLIDER-OLD - [0:0]\n-A PREROUTING -j PARAGLIDER-OLD\nCOMMIT\n"
    text = restore_text(WANTED, saved)
    assert text.startswith(WANTED)
    assert text.endswith(
        "*nat\n-D PREROUTING -j PARAGLIDER-OLD\n-F PARAGLIDER-OLD\n-X PARAGLIDER-OLD\nCOMMIT\n"
    )


def test_tables_of_one_name_are_joined() -> None:
    """Their chains and jumps one after the other; a table by itself stays as it is."""
    one, two = Chain("PARAGLIDER", "one", ()), Chain("PARAGLIDER-DSR", "two", ("-j RETURN",))
    left = Table("raw", (one,), (("PREROUTING", one.name),))
    right = Table("raw", (two,), (("PREROUTING", two.name),))
    alone = Table("filter", (one,), ())
    assert joined((left, alone, right)) == (
        Table("raw", (one, two), left.jumps + right.jumps),
        alone,
    )
