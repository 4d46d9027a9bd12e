"""Statistics: what workers and the kernel count.

traffic           counters of backends and services                      (``traffic``)
live counts       offloaded flows, in shared memory                      (``live_counts``)
"""
