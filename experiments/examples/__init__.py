"""Short programs that use the zoo and its kernels from other projects' code."""
