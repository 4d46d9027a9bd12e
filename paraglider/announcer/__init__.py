"""`paraglider announce`: tells ExaBGP, BIRD or a program which VIPs to announce to routers.

routes     what is to be announced, from what the daemon tells           (``routes``; pure)
stream     the connection to the daemon's control socket                 (``stream``)
exabgp     says it to ExaBGP, its parent                                 (``exabgp``)
bird       says it to BIRD, at its control socket                        (``bird``)
programs   says it to a program of the operator                          (``programs``)
resident   the process                                                   (``resident``)

Rules: no part waits for another program; what cannot be said at once is said later, and then only
the newest. The daemon's supervisor is trusted to tell whether a VIP is well, and nothing else: what
is said comes from the file.
"""
