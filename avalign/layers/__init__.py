"""What projectors and fusion modules are built of."""
