"""Store: the desired state of services and backends.

backends     state, weight and last check of every backend          (``backends``)
draining     removed backends that have flows                   (``draining``)
discovered   backends that failover discovered                              (``discovered``)
node         whether this balancer is drained                   (``node``)
"""
