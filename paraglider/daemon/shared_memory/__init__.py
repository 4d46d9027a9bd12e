"""Memory that processes share with the supervisor: written by one process, read without a request.

counters            a worker's counters                                    (``counters``)
heartbeat           heartbeat of a process, and what it does                      (``heartbeat``)
"""
