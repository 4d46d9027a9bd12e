"""Processes: what all processes of a Paraglider have in common.

children     started, heard, replaced when they die, ended            (``children``)
beginning    how each of them begins                                  (``beginning``)
channel      messages between it and the hub                          (``channel``)
counters     what a process counts, in memory that the hub reads     (``counters``)
live         live flows, in memory that all with flows read           (``live``)
loop         waiting, for all that a process waits for                (``loop``)
renewal      replaced for another configuration, one at a time        (``renewal``)
notify       what the service manager is told                         (``notify``)
"""
