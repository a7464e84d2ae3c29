"""`avalign data check`: what is wrong with a manifest and its media."""
