"""The kernel's packet side: queues, connection tracking, nftables and iptables, text of rules."""
