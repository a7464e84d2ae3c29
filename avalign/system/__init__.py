"""What avalign needs of its machine: files written whole, processes, the terminal, the cache."""
