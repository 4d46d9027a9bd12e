"""Hub: what is true of services and backends now, and who is told of it.

hub          the table's keeper, and what changes it                    (``hub``)
pools        the table                                                  (``pools``)
own file     the daemon's own, looked at for changes                    (``own_file``)
reload       what of another configuration is taken over in place       (``reload``, ``leaving``)
host         what the host has to have done for it                      (``host``)
questions    what it asks several processes                             (``questions``)
desk         its answers to the control socket                          (``desk``, ``views``)
gate         those to the stats page, which speaks with anybody         (``gate``)
health       what checks and clients say of backends                    (``health``, ``hints``)
strangers    hosts that failover found                                  (``strangers``)
sources      backends that are listed elsewhere                         (``sources``, ``gathered``,
             ``kept``)
carried      what the kernel carries of offloaded flows                 (``carried``)
offloaded    what the kernel is told of backends' states                (``offloaded``)
watch        what it looks at where flows are offloaded                 (``watch``)
"""
