"""Projectors: tokens of one width to tokens of another, sometimes fewer."""
