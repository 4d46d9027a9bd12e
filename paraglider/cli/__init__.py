"""The commands: parse arguments, call the layers below, print.

main            the group `paraglider`, its options, its console entry point
check           `paraglider check`: validates a configuration file and summarizes it
run             `paraglider` without a command: runs the daemon
explain         `paraglider explain`: the backend of a flow, and why; ``explain_output`` prints it
import_         `paraglider import`: converts another balancer's configuration
start           `paraglider start`: the kernel balances without a daemon
stop            `paraglider stop`: undoes `start`
show            `paraglider show`: services and backends with counters; ``tables`` has the columns,
                ``listing`` fits them to the terminal
top             `paraglider top`: the same live; ``rates`` computes rates, ``top_screen`` the lines,
                ``terminal`` is the screen and the keys
flows           `paraglider flows`: lists flows, ends some
set_backend     `paraglider set backend`: changes a state or weight
health          `paraglider health`: healthy, degraded, draining or unhealthy
node            `paraglider node`: drains this balancer
common_options  shared by the commands that talk to a running daemon
backend_setup   `paraglider backend-setup`: sets a backend's host up
lab             `paraglider lab`: client, balancer and backends in network namespaces
setup_host      the set-up script `paraglider.config`
steps           applies and undoes a plan, for the commands that change the host
step_printer    prints the steps, one per line
errors          maps exceptions to messages and exit codes, for all commands

One module per command, imported when it is used. Exit codes: 0 done, 1 the operator's mistake,
2 the platform refused, 130 interrupted.
"""
