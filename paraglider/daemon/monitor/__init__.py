"""The monitor: one process that checks backends, queries the DNS, and watches files of backends.

process      the process                                              (``process``)
discovery    periodic DNS queries, watched files              (``discovery``)
dns_lookup   one DNS query                                      (``dns_lookup``)
outbox       unsent results, only the newest of each subject       (``outbox``)
"""
