"""Controller: turns requests and inputs into changes of the store, and has them reconciled.

controller           the loop's part of the daemon                       (``controller``)
handlers             answers to the control socket                       (``handlers``, ``views``)
read-only handlers   answers to the stats page                           (``readonly_handlers``)
broadcast            one request to several processes, with a deadline   (``broadcast``)
"""
