"""The carrier in BPF: a program in the kernel carries packets of flows that a worker decided."""
