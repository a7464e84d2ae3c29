"""Recipes: their settings, read with every problem named at its location, checked, and written."""
