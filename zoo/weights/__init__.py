"""Weights in and out: names to and from torch, safetensors, downloads."""
