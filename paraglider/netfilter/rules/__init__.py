"""Pure: a configuration becomes the text of the rules that the kernel is to hold.

Glossary
- steering   which worker gets a packet: a mark computed from the client's end of the flow,
             the same in both directions (``steering``)
- traffic    what of a configuration concerns the rules: the endpoints of the VIPs and of the
             backends, each named once whatever number of services share it (``traffic``)
- rule set   the rules of one family, as tables and chains of ours, and the input that brings
             ``iptables-restore --noflush`` there (``ruleset``, ``iptables``)
- branches   rules for many addresses, of which a packet meets few (``branches``)
- backend    what a backend's own host needs, and the table that gives its answers the VIP as
             source (``backend``)
- saved      what ``iptables-save`` printed, and which part of it is ours (``saved``)

Rules of the house: nothing here touches the host; the same input gives the same text, which the
golden files of ``tests/rules`` hold.
"""
