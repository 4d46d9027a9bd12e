"""The monitor: one process that checks backends, asks the DNS, and watches files of backends.

process      the process                                              (``process``)
discovery    names that are asked again and again, files              (``discovery``)
dns_lookup   how a name is asked                                      (``dns_lookup``)
outbox       what waits until the supervisor reads, newest only       (``outbox``)
"""
