"""The commands: parse arguments, call what is below, print.

main        the group `paraglider`, its options, its console entry point; runs the balancer
check       `paraglider check`: validates a configuration file and sums it up
run         what `paraglider` without a command does
import_     `paraglider import`: another balancer's configuration as ours
lab         `paraglider lab`: client, balancer and backends in network namespaces
setup_host  the set-up script `paraglider.config`
errors      from exceptions to messages and exit codes, for every command alike

One module a command, loaded when it is used. Exit codes: 0 done, 1 the operator's mistake,
2 the platform refused, 130 interrupted.
"""
