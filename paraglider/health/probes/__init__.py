"""One look at a backend, of each type that the file may name.

base       what a probe is, and how a refusal of the network is put into words
tcp        connects
http       http and https: asks, and judges status and body
icmp       pings
program    exec: runs a program of the operator's

A probe is a coroutine that takes a target and either returns one line that says what it found or
raises ``ProbeError`` with one that says why not. How long it may take is not its business: ``look``
ends it, and says what it was at.
"""
