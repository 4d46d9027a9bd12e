"""The things that the set-up alters, each together with what was there before.

Glossary
- change    what all of them can do, and the edges they do it through (``base``)
- sysctls   a kernel parameter; forwarding, which takes others along (``sysctls``)
- links     an address of an interface; a neighbour that is kept resolved (``links``)
- rules     the rules of one family (``ruleset``)
- table     the table of ``forward: offload`` of one family (``table``)
- whole     a table that is replaced whole: leases of dsr, answers of a backend (``whole``)
- route     the default route of a backend's host (``default_route``)
- served    which changes a backend's host needs for which service (``served``)
- directory the default chroot (``directory``)
- record    a change as JSON-ready data, for the state (``records``)

Rules of the house: ``apply`` and ``revert`` may be repeated: what is already so stays so, and what
is gone (an interface, an address) needs no taking back.
"""
