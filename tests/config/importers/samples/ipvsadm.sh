#!/bin/bash
VIP=192.168.0.8
RIP1=192.168.0.6
export RIP2="192.168.0.7"
PORTS="80 443"
/etc/rc.d/init.d/functions
case "$1" in
start)
    ifconfig eth0:0 $VIP broadcast $VIP netmask 255.255.255.255 up
    echo 1 > /proc/sys/net/ipv4/ip_forward
    ipvsadm -C
    iptables -t mangle -A PREROUTING -d 192.168.0.9 -p tcp -m multiport --dports 21,1024:65535 -j MARK --set-mark 21
    for p in $PORTS; do
      ipvsadm -At $VIP:$p -s wrr -p120
      ipvsadm -at $VIP:$p -r $RIP1:$p -g -w3 ; ipvsadm -a -t $VIP:$p -r $RIP2:$p \
          -g
    done
    ipvsadm --add-service --fwmark-service=21 --scheduler=sh
    for i in {1..3}; do ipvsadm -a -f 21 -r 10.0.0.$i -g; done
    ipvsadm -a -f 21 -r $UNKNOWN -g
    ipvsadm --set 900 120 300
    ipvsadm --start-daemon master --mcast-interface=eth0
    ;;
stop)
    ipvsadm -D -t $VIP:80
    ;;
esac
