"""Host helper: the process that changes the host, so that the supervisor never waits for a program.

process    its loop: the kernel's events, the supervisor's requests, time   (``process``)
service    what is compared and restored, and when                          (``service``, ``turns``)
adjust     the set-up brought to another configuration                      (``adjust``)
readings   the kernel's tables, read on request                             (``readings``)
arrivals   announcements of addresses that arrive here                           (``arrivals``)
"""
