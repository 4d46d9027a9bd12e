"""Host helper: the process that changes the host, so that the supervisor never waits for a program.

process    its loop: the kernel's events, the supervisor's requests, time    (``process``)
service    comparisons with the set-up, and repairs                 (``service``, ``turns``)
adjust     changes the set-up for another configuration                       (``adjust``)
readings   reads the kernel's tables on request                             (``readings``)
carrier    links and counters of the BPF carrier                             (``carrier``)
arrivals   announces addresses that arrive here                             (``arrivals``)
addresses  reports this host's own addresses to the supervisor         (``own_addresses``)
"""
