"""Statistics: the counters of workers and of the kernel.

carried           what BPF carried                                       (``carried``)
traffic           counters of backends and services                      (``traffic``)
live counts       offloaded flows, in shared memory                      (``live_counts``)
"""
