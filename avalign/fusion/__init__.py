"""Fusion: cross-modal adapters that return tokens and attention maps."""
