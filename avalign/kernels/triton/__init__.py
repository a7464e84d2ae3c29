"""The fused GPU kernels. The only modules that import triton."""
