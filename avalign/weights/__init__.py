"""Weights from files and hubs: strict, finite, and every load reported."""
