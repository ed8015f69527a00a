"""Which phase runs on which host."""
