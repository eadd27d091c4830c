"""What shows, without a GPU, that a kernel is correct and what it costs: it is run on the CPU (interpret), compiled for an
absent GPU (aot), and counted (traffic: kernels and bytes of a compiled program; residency: blocks that a device holds at once).
"""
