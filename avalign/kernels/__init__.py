"""Fused kernels of optimal transport: plain tensors in and out, each module imported when it is used."""
