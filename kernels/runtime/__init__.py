"""What runs an operator: which implementation is chosen (dispatch), how a kernel is launched (launch), what becomes of it under
jax.vmap and a mesh (batching), its block sizes (tuning), what the device is (devices; gpus has those that are not there) and
what was measured on it (measured); and what operators share: checks of arguments, activations, functions inside Triton kernels
(triton_math).
"""
