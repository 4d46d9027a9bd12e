"""Paraglider: a layer-4 load balancer; Python decides once per connection.

service    a VIP, a protocol and its ports, balanced over one pool
backend    one server of a pool: address, optional port, weight, state
pool       the backends of a service, and which of them may take new flows
strategy   picks a backend for a new flow: a class of ``core.strategies``, or a user's
forward    how packets of a flow get to the backend: nat, offload, dsr, proxy
flow       one connection: key, backend, state, last seen
rewrite    what is done to a packet of a flow: a slice replaced, and a checksum delta
verdict    the result for a packet: accepted as rewritten, marked or unchanged; dropped
worker     a process pinned to one core that reads one queue; queue number = core number
steering   the kernel rules that send both directions of a flow to the same worker

Imports only point down: errors < core < config, rules < system, health, forwarding < control
< lab < cli. ``core`` imports the standard library only.
"""

from pathlib import Path as _Path

from paraglider import _compiled

__version__ = "0.1.0"

_compiled.choose(_Path(__file__).parent)
