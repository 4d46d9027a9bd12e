"""The processes of a running Paraglider.

supervisor      the parent of all others                                   (``supervisor``)
process_specs   which processes a configuration needs                      (``process_specs``)
static_watch    keeps a host that balances without a daemon                (``static_watch``)
settings        what a daemon was started with; reads the file             (``settings``)
log             structured log on standard error                           (``log``)
ipc, messages   how processes communicate, and every message               (``ipc``, ``messages``)

controller      the supervisor's loop: requests, what is shown             (``controller``)
store, inputs, reconcile, conditions, stats    desired state: held, fed, applied, judged, counted
workers         the processes that have flows, and what they count         (``workers``)
monitor         checks, the DNS, files of backends: one process            (``monitor``)
http, web       control socket, page and metrics: one process              (``http``, ``web``)
host_helper     the process that changes the host                          (``host_helper``)
processes       what all have in common: forked, replaced, ended           (``processes``)
shared_memory   what a process writes and the supervisor reads             (``shared_memory``)

Rules: imports point down here too.
"""
