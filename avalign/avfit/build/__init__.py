"""`avalign data build`: from a plan to a manifest."""
