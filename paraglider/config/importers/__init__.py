"""Configurations of other balancers, as ours.

draft       what an importer makes of a file: our keys and values, where each comes from, comments
render      a draft as the text of a commented paraglider.conf
formats     which format a text has, and what reads it
loaded      loaded's loaded.config and loaded.config6
convey      Convey's .toml
ipvsadm     what ipvsadm-save prints
glider      the Go Paraglider's glider.yaml; ``load`` takes it as it is, too
"""
