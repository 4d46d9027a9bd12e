"""Controller: turns requests and inputs into changes of the store, and has them reconciled.

controller           the daemon's part of the loop                       (``controller``)
processes            the processes by number and role                    (``processes``)
handlers             answers to the control socket                       (``handlers``, ``views``)
http requests        what the clients of http may do                     (``http_requests``)
read-only handlers   answers to the stats page                           (``readonly_handlers``)
reloader             reloads of the configuration file                   (``reloader``)
"""
