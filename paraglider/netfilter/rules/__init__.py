"""Pure: what the rules of all forwarding methods have in common, as text.

What a method alone needs is in its folder (``forward.nat.rules``, ``forward.offload.table``, …);
``forward.queue_rules`` and ``forward.openings`` put the parts of a family together.

Glossary
- steering   which worker gets a packet: a mark computed from the client's end of the flow,
             the same in both directions (``steering``)
- traffic    what of a configuration concerns the rules: the endpoints of the VIPs and of the
             backends, each named once whatever number of services share it (``traffic``)
- rule set   the rules of one family, as tables and chains of ours, and the input that brings
             ``iptables-restore --noflush`` there (``ruleset``); what all methods match
             (``matches``), and what filter accepts (``filter``)
- prefix chains
             rules for many addresses, of which a packet meets few (``prefix_chains``)
- nft        the table by which the kernel translates connections (``nft``, ``conntrack``,
             ``claims``), and the difference of two texts of it (``delta``)
- marks      whose a packet is (``marks``)
- backend    the table on a backend's own host that gives its answers the VIP as source
             (``backend``)
- saved      what ``iptables-save`` printed, and which part of it is ours (``saved``)
- foreign    what another firewall's chain does with balanced packets (``foreign``)

Rules of the house: nothing here touches the host; the same input gives the same text, which the
golden files of ``tests/forward/golden`` hold.
"""
