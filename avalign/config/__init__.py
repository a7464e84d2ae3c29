"""Recipes: their settings, read with every problem named at its place, checked, and written."""
