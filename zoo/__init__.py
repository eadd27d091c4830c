"""The classic networks in Flax NNX, with hand-written GPU kernels."""
