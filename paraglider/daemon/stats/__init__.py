"""Statistics: what workers and the kernel count.

traffic           counters of backends and services                      (``traffic``)
kernel counters   packets of offloaded flows                             (``kernel_counters``)
live counts       offloaded flows, in shared memory                      (``live_counts``)
table monitor     the kernel's hash and conntrack's table                (``table_monitor``)
"""
