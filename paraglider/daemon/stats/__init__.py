"""Statistics: the counters of workers and of the kernel.

traffic           counters of backends and services                      (``traffic``)
live counts       offloaded flows, in shared memory                      (``live_counts``)
"""
