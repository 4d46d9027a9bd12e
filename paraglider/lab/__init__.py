"""The lab: Paraglider at work in network namespaces of its own, for demos and for tests.

- **topology**: a client, a balancer, a switch and backends as namespaces joined by veth pairs.
- **namespace**: one of them, with the processes that run in it; what is made is removed again.
- **balancer**: the real set-up and the real daemon, run in the balancer's namespace.
- **servers**, **client**: tiny programs that say which backend answered; standard library only.
- **traffic**, **window**: of a lab that is kept, what goes on in it and how the host sees its page.
- **direct**: what is different where the backends answer the client past the balancer.
- **story**: what ``paraglider lab`` does, from building to removing, with a table of who answered.

Nothing here knows how balancing works: the lab drives the commands that an operator would type.
"""
