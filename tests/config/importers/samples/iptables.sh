#!/bin/sh
# On the balancer, 192.0.2.80
# Destination 10.9.0.1
iptables -A PREROUTING -t nat -p tcp -d 192.0.2.80 --dport 80 -m statistic --mode nth --every 4 --packet 0 -j DNAT --to-destination 10.9.0.1:80
iptables -A POSTROUTING -t nat -p tcp -d 10.9.0.1 --dport 80 -j SNAT --to-source 192.0.2.80
iptables -t filter -A FORWARD -p tcp -d 10.9.0.1 --dport 80 -j ACCEPT
iptables -t filter -A FORWARD -p tcp -s 10.9.0.1 --sport 80 -j ACCEPT
iptables -A PREROUTING -t nat -p tcp -d 192.0.2.80 --dport 80 -m statistic --mode nth --every 3 --packet 0 -j DNAT --to-destination 10.9.0.2:80
iptables -A POSTROUTING -t nat -p tcp -d 10.9.0.2 --dport 80 -j SNAT --to-source 192.0.2.80
iptables -A PREROUTING -t nat -p tcp -d 192.0.2.80 --dport 80 -m statistic --mode nth --every 2 --packet 0 -j DNAT --to-destination 10.9.0.3:80
iptables -A POSTROUTING -t nat -p tcp -d 10.9.0.3 --dport 80 -j SNAT --to-source 192.0.2.80
iptables -A PREROUTING -t nat -p tcp -d 192.0.2.80 --dport 80 -j DNAT --to-destination 10.9.0.4:80
iptables -A POSTROUTING -t nat -p tcp -d 10.9.0.4 --dport 80 -j SNAT --to-source 192.0.2.80
