"""What shows, without a GPU, that a kernel is right and what it costs: its source run on the CPU (interpret), its PTX executed
there (ptx), compiled for a GPU that is not there (aot), counted (traffic: kernels and bytes of a compiled program; residency:
blocks that a device holds at once).
"""
