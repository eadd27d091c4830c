"""What runs an operator: the choice of an implementation (dispatch), the launch of a kernel (launch), its behaviour under
jax.vmap and on a mesh (batching), its derivatives (derivatives), its block sizes (tuning), the device (devices; gpus describes
absent ones) and what was measured on it (measured). Also what operators share: checks of arguments, activations, and functions
inside Triton kernels (triton_math).
"""
