"""Http: the process behind the control socket and the stats page, and the client of that socket.

process              the process                                             (``process``)
routes               the requests of the control socket                      (``routes``)
metrics              metrics for Prometheus (``metrics``, ``exposition``)
connection_limiter   few connections at a time, and none for ever (``connection_limiter``)
client               what commands use                                       (``client``)
"""
