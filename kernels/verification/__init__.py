"""What shows, without a GPU, that a kernel is correct and what it costs: its source is run on the CPU (interpret), its compiled
code is executed there (ptx), it is compiled for an absent GPU (aot), and counted (traffic: kernels and bytes of a compiled
program; residency: blocks that a device holds at once).
"""
