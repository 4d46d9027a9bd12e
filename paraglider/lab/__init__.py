"""The lab: Paraglider in network namespaces, for demos and tests.

- **topology**: a client, a balancer, a switch and backends as namespaces joined by veth pairs.
- **namespace**: one namespace and its processes; both are removed at the end.
- **balancer**: the real set-up and the real daemon in the balancer's namespace.
- **servers**, **client**: small programs that report which backend answered; standard library only.
- **load_clients**: clients that open connections until they are stopped, and their results.
- **traffic**, **port_forward**: for a kept lab, continuous traffic and the stats page on the host.
- **direct**: the parts for ``forward: dsr`` and ``tunnel``, where backends answer the client
  directly.
- **scenario**, **failover_scenario**: the runs of ``paraglider lab``, from set-up to removal;
  **removal** also removes kept ones.
- **several_scenario**: several balancers with the same VIPs, one of which goes and returns: all
  active (**fleet_scenario**, **bird**, **fleet_router**), or two with VRRP (**pair_scenario**,
  **vrrp**, **keepalived**, **conntrackd**).
- **fleet_topology**, **fleet_configuration**, **member**: their network, their files, one of them.
- **flows**, **lasting**, **event_table**: the client's open flows, their program, and the output.

The lab does not import the balancer: it runs the commands that an operator would run.
"""
