"""Configurations of other balancers, as ours.

draft       what an importer makes of a file: our keys and values, where each comes from, comments
glider      the Go Paraglider's glider.yaml; ``load`` takes it as it is, too
"""
