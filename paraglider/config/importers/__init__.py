"""Importers: convert the configurations of other balancers.

draft       the result of an importer: keys and values, their places in the file, comments
services    services as importers find them, and how they get into a draft
render      a draft as the text of a commented paraglider.conf
formats     detects the format of a text
includes    reads the files that a file includes
blocks      the words and blocks of nginx and keepalived
shell       the commands of a shell script
lvs         services of LVS, for ipvsadm and keepalived
loaded      loaded's loaded.config and loaded.config6
convey      Convey's .toml
ipvsadm     what ipvsadm-save and ipvsadm -L print, and scripts that call ipvsadm
glider      the Go Paraglider's glider.yaml; ``load`` takes it as it is, too
keepalived  keepalived.conf: virtual servers
haproxy     haproxy.cfg: what is `mode tcp`
nginx       nginx.conf: the block `stream`
iptables    what iptables-save prints, and scripts: DNAT by turns or by chance
"""
