"""The dtypes in which kernels are checked, and the tolerance for each."""

DTYPES = ("float32", "bfloat16", "float16")
# A rounding of the result and of what was rounded on the way to it, relative to its largest element.
ROUNDING = {"float32": 1e-5, "bfloat16": 2**-7, "float16": 2**-10}
