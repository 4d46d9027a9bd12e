"""The changes of the set-up, each with the value before it.

Glossary
- change    the interface of all changes, and the platform's edges (``base``)
- sysctls   a kernel parameter; forwarding, which changes others (``sysctls``)
- links     an address of an interface; a neighbour that is kept resolved (``links``)
- rules     the iptables rules of one family (``ruleset``)
- table     the table of ``forward: offload`` of one family (``table``)
- replaced  a table that is replaced as a whole: leases of dsr, … (``replaced_table``)
- route     the default route of a backend's host (``default_route``)
- needs     the changes that a backend's host needs for each service (``needs``)
- directory the default chroot (``directory``)
- record    a change as JSON-ready data, for the state (``records``)

Rules: ``apply`` and ``revert`` are idempotent. A change of an object that has been removed (an
interface, an address) needs no revert.
"""
