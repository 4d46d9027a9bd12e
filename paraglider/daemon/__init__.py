"""The processes of a running Paraglider.

    supervisor      the parent of all others                                (``supervisor``)
    process_specs   the processes that a configuration needs                (``process_specs``)
    static_watch    repairs a host that balances without a daemon           (``static_watch``)
    settings        the start options of a daemon; reads the file           (``settings``)
    log             structured log on standard error                        (``log``)
    ipc, messages   the transport between processes, and every message      (``ipc``, ``messages``)
    controller      the supervisor's loop: requests and views               (``controller``)
    store           the desired state, with versions                        (``store``)
    inputs          what changes the store: health, DNS, files, reloads     (``inputs``)
    reconcile       bring workers, host and checks to the store's state     (``reconcile``)
    conditions      what is wrong with the daemon and its host              (``conditions``)
    stats           counters of workers and of the kernel                   (``stats``)
    workers         the processes with flows, and their counters            (``workers``)
    monitor         checks, the DNS, files of backends: one process         (``monitor``)
    http, web       control socket, page and metrics: one process           (``http``, ``web``)
    host_helper     the process that changes the host                       (``host_helper``)
    processes       fork, replace and end processes                         (``processes``)
    shared_memory   written by one process, read by the supervisor          (``shared_memory``)

Rules: imports point down here too.
"""
