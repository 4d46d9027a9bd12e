"""Processes: how the supervisor starts, supervises and ends its processes.

manager           started, watched, replaced when they die, ended (``manager``, ``child``)
forking           fork, and the report until it is ready            (``forking``)
bootstrap         the first steps of each: name, privileges                    (``bootstrap``)
exchange          its messages, received in slices (``exchange``, ``inbox``)
hangs             detection of hanging processes                           (``hangs``)
rolling_restart   replaced for another configuration, one at a time         (``rolling_restart``)
loop              waiting for signals, descriptors and time                 (``loop``)
faults            exceptions that must not end the daemon                   (``faults``)
notify            systemd's notifications and watchdog                      (``notify``)
"""
