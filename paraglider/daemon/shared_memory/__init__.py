"""Memory that processes share with the supervisor: written by one process, read without asking.

counters            what a worker counts                                    (``counters``)
heartbeat           signs of life, what a process does                      (``heartbeat``)
"""
