"""Lookouts: the processes that look at backends, and at where backends are listed.

checker   looks at backends                                       (``checker``)
scout     looks at files and names that list them                 (``scout``)
asking    how a name is asked for                                 (``asking``)
errands   what the hub and the scout say to each other            (``errands``)
mouth     how such a process hears the hub                        (``mouth``)
"""
