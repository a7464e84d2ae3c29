"""Fused kernels: plain tensors in and out, and the same answers as the torch engine in ot/iterations.py."""
