"""The commands: parse arguments, call what is below, print.

main        the group `paraglider`, its options, its console entry point; runs the balancer
check       `paraglider check`: validates a configuration file and sums it up
run         what `paraglider` without a command does
explain     `paraglider explain`: who gets a flow and why; ``explained`` words it
import_     `paraglider import`: another balancer's configuration as ours
start       `paraglider start`: the kernel balances by itself, without a daemon
stop        `paraglider stop`: takes back what `start` did
show        `paraglider show`: what is balanced, with counters; ``tables`` lays it out, by
            ``listing``, in columns that fit the terminal
top         `paraglider top`: the same live; ``rates`` from two looks, ``frame`` a screenful,
            ``terminal`` the screen and the keys
flows       `paraglider flows`: lists flows, ends some
set_backend `paraglider set backend`: another state or weight
health      `paraglider health`: whether all is well
asking      what the commands that ask a running daemon share
backend_setup  `paraglider backend-setup`: what a backend's own host needs
lab         `paraglider lab`: client, balancer and backends in network namespaces
setup_host  the set-up script `paraglider.config`
steps       from a plan to what is printed of it, for the commands that change the host
tell        the steps on standard output, one a line
errors      from exceptions to messages and exit codes, for every command alike

One module a command, loaded when it is used. Exit codes: 0 done, 1 the operator's mistake,
2 the platform refused, 130 interrupted.
"""
