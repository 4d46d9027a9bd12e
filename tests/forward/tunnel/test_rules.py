"""The rules of tunnels; their text is in the golden files."""

from __future__ import annotations

from paraglider.config.model import Config
from paraglider.forward.queue_rules import queue_rules

TUNNEL = {"name": "a", "vip": "192.168.0.11/24", "protocol": "tcp", "forward": "tunnel"}
TUNNEL |= {"backends": ["10.0.0.1"]}


def rules() -> str:
    """The rules of one service for one worker."""
    found = queue_rules(Config.model_validate({"services": [TUNNEL]}), 4, (0,), 1)
    assert found is not None
    return found.text()


def test_what_was_sent_on_ends() -> None:
    """The original of a packet never leaves, and comes before the rejection of all others."""
    lines = rules().splitlines()
    drop = lines.index("-A PARAGLIDER-TUN-ACCEPT -m mark --mark 0x54000000/0xff000000 -j DROP")
    reject = next(i for i, line in enumerate(lines) if "-j REJECT" in line)
    assert drop < reject
    assert lines[drop + 1].startswith("-A PARAGLIDER-TUN-ACCEPT -d 192.168.0.11")


def test_what_workers_send_passes() -> None:
    """Untracked, and whatever the policy of OUTPUT; no rule has a backend's address."""
    text = rules()
    assert "-A PARAGLIDER-TUN-SENT -m mark --mark 0x55000000 -j CT --notrack" in text
    assert "-A PARAGLIDER-TUN-PASS -m mark --mark 0x55000000 -j ACCEPT" in text
    assert text.count("-I OUTPUT 1 -j PARAGLIDER-TUN-") == 2
    assert "10.0.0.1" not in text
