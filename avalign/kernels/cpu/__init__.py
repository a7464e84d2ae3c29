"""The fused CPU kernels: C++ sources, and the engine that builds and calls them."""
