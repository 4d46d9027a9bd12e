"""Host: the process that changes the host, so that the supervisor never waits for a program.

process      its life: the kernel's events, the hub's orders, time      (``process``)
service      what it does with them; pure but for the reconciler        (``service``)
adjust       the set-up brought to another configuration                (``adjust``)
messages     what the hub and it say to each other                      (``messages``)
"""
