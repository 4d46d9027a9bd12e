"""Conditions: what is wrong with the daemon and its host now.

table        all conditions, logged when they begin and end      (``table``)
assessor     processes, services, workers                        (``assessor``)
journals     the workers' flow journals                          (``journals``)
carrier      whether BPF carries flows, and its switch           (``carrier``)
refusals     new flows that the kernel refuses                (``refusals``)
unanswered   openings that no backend answers                    (``unanswered``)
health       what is told of all, of this balancer, or of a VIP  (``health``)
"""
