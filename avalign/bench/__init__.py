"""How fast, how large and how right a loss is, beside everything else that computes it."""
