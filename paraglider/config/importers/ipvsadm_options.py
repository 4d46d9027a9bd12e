"""The options of ``ipvsadm``, in all their spellings.

Lives here: ``parse``, which turns the words of one command into options by their short names.
Rules: as ipvsadm's own parser (popt) has them: `-A -t VIP`, `-At VIP`, `-w3`, `--weight=3`,
`--weight 3`. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from paraglider.config.importers.draft import number
from paraglider.config.wording import shown

# What ipvsadm(8) calls an option → the short name.
_LONG = {
    "--add-service": "-A",
    "--edit-service": "-E",
    "--delete-service": "-D",
    "--clear": "-C",
    "--restore": "-R",
    "--save": "-S",
    "--add-server": "-a",
    "--edit-server": "-e",
    "--delete-server": "-d",
    "--list": "-L",
    "--zero": "-Z",
    "--help": "-h",
    "--version": "-v",
    "--tcp-service": "-t",
    "--udp-service": "-u",
    "--fwmark-service": "-f",
    "--scheduler": "-s",
    "--persistent": "-p",
    "--netmask": "-M",
    "--sched-flags": "-b",
    "--real-server": "-r",
    "--weight": "-w",
    "--u-threshold": "-x",
    "--l-threshold": "-y",
    "--gatewaying": "-g",
    "--ipip": "-i",
    "--masquerading": "-m",
    "--ops": "-o",
    "--ipv6": "-6",
    "--numeric": "-n",
    "--connection": "-c",
    "--exact": "-X",
}
_VALUED = {"-t", "-u", "-f", "-s", "-M", "-b", "-r", "-w", "-x", "-y"} | {
    "--sctp-service",
    "--pe",
    "--set",
    "--mcast-interface",
    "--syncid",
    "--start-daemon",
    "--stop-daemon",
    "--tun-type",
    "--tun-port",
}
_BARE = set("AEDCRSaedLlZhvgimo6ncX")
_BARE_LONG = {
    *("--timeout", "--daemon", "--stats", "--rate", "--thresholds", "--persistent-conn"),
    *("--nosort", "--sort", "--tun-nocsum", "--tun-csum", "--tun-remcsum"),
}
_PERSISTENT = 300  # default of `-p` in seconds (ipvsadm(8))

#: options that say which service is meant
SERVICE = ("-t", "-u", "--sctp-service", "-f")


def parse(words: Sequence[str]) -> dict[str, str]:
    """The options of one command; raises ``ValueError`` ("what; remedy") if one is wrong."""
    options: dict[str, str] = {}
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word.startswith("--"):
            _long(word, rest, options)
        elif word.startswith("-") and len(word) > 1:
            _cluster(word, rest, options)
        else:
            raise ValueError(f"{shown(word)} is no option of ipvsadm-save; leave it out")
    return options


def _long(word: str, rest: list[str], options: dict[str, str]) -> None:
    word, equals, joined = word.partition("=")
    name = _LONG.get(word, word)
    if name == "-p":
        options[name] = joined if equals else _seconds(rest)
    elif name in _VALUED:
        options[name] = joined if equals else _value(word, rest)
        if name == "--set":
            options[name] = " ".join((options[name], _value(word, rest), _value(word, rest)))
    elif name[1:] in _BARE or name in _BARE_LONG:
        options[name] = ""
    else:
        raise ValueError(f"{shown(word)} is no option of ipvsadm-save; leave it out")


def _cluster(word: str, rest: list[str], options: dict[str, str]) -> None:
    """Add the options of `-At`, `-Ln` or `-w3`: letters, of which the last can have a value."""
    for index, letter in enumerate(word[1:], 2):
        name, joined = f"-{letter}", word[index:].removeprefix("=")
        if name == "-p":
            options[name] = joined or _seconds(rest)
            return
        if name in _VALUED:
            options[name] = joined or _value(word, rest)
            return
        if letter not in _BARE:
            raise ValueError(f"{shown(word)} is no option of ipvsadm-save; leave it out")
        options["-L" if letter == "l" else name] = ""


def _value(word: str, rest: list[str]) -> str:
    if not rest:
        raise ValueError(f"{shown(word)} has no value; add one")
    return rest.pop()


def _seconds(rest: list[str]) -> str:
    """The value of `-p`, which may be left out."""
    known = rest and (isinstance(number(rest[-1]), int) or rest[-1].startswith("$"))
    return rest.pop() if known else str(_PERSISTENT)
