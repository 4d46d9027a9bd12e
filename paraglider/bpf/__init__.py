"""The kernel's BPF side: the program that carries flows, its maps, rings and links.

- layout    the formats that the program and Python share                     (``layout``)
- syscall   bpf(2)                                                            (``syscall``)
- elements  elements of a map by its descriptor; ``_maps`` is the compiled twin (``elements``)
- maps      the maps of a carrier, created or taken over                      (``maps``)
- decisions the decisions of the program about new flows                 (``decisions``)
- ring      events that the program sends                                     (``ring``)
- loader    loads an object file by libbpf                                    (``loader``)

Rules: no module here decides about flows. Errors of the kernel are ``OSError``; those of ``loader``
have a sentence for the operator.
"""
