"""Api: the process behind the control socket, and the other end of that socket.

process     the process                                             (``process``)
routes      what can be asked of it                                 (``routes``)
metrics     what Prometheus is told                                 (``metrics``, ``exposition``)
door        its connections, few and not for ever                   (``door``)
hub client  what it asks the hub                                    (``hub_client``)
listening   the socket, made before privileges go                   (``listening``)
client      the other end: what commands ask it with                (``client``)
"""
