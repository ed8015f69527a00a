"""What a phase is given, and what it leaves for the next."""
