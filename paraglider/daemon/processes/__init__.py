"""Processes: what all processes of a Paraglider have in common.

manager           started, watched, replaced when they die, ended (``manager``, ``child``)
forking           how one is forked, and reports until it serves            (``forking``)
bootstrap         how each of them begins: names, rights                    (``bootstrap``)
exchange          its messages, received in slices (``exchange``, ``inbox``)
hangs             which ones give no sign of life                           (``hangs``)
rolling_restart   replaced for another configuration, one at a time         (``rolling_restart``)
loop              waiting for signals, descriptors and time                 (``loop``)
faults            exceptions that must not end the daemon                   (``faults``)
notify            systemd's notifications and watchdog                      (``notify``)
"""
