"""Pure: the parts of the rules that several forwarding methods share, as text.

Parts of one method are in its folder (``forward.nat.rules``, ``forward.offload.table``, …);
``forward.queue_rules`` and ``forward.openings`` combine the parts of a family.

Glossary
    steering       which worker gets a packet: a mark computed from the client's end of the flow,
                   the same in both directions (``steering``)
    traffic        the endpoints of the VIPs and of the backends, each once, whatever number of
                   services share it (``traffic``)
    rule set       the rules of one family, as our tables and chains, and the input of
                   ``iptables-restore --noflush`` for them (``ruleset``); the common matches
                   (``matches``), and the accepting rules of filter (``filter``)
    prefix chains  rules for many addresses, of which a packet meets few (``prefix_chains``)
    nft            the table by which the kernel translates connections (``nft``, ``conntrack``,
                   ``claims``), and the difference of two texts of it (``delta``)
    marks          identify the backend of a packet (``marks``)
    backend        the table on a backend's own host that gives its answers the VIP as source
                   (``backend``)
    saved          the output of ``iptables-save``, and our part of it (``saved``)
    foreign        the effect of another firewall's chain on balanced packets (``foreign``)

Rules: nothing here touches the host; the same input gives the same text, which is compared with the
golden files of ``tests/forward/golden``.
"""
