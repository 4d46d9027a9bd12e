"""Importers: convert the configurations of other balancers.

draft       the result of an importer: keys and values, their places in the file, comments
render      a draft as the text of a commented paraglider.conf
formats     detects the format of a text
loaded      loaded's loaded.config and loaded.config6
convey      Convey's .toml
ipvsadm     what ipvsadm-save prints
glider      the Go Paraglider's glider.yaml; ``load`` takes it as it is, too
"""
