"""Store: the desired state of services and backends.

backends     state, weight and last check of every backend          (``backends``)
draining     backends that the file no longer has                   (``draining``)
discovered   hosts that failover found                              (``discovered``)
"""
