"""The questions' look-ups, over the real Hub."""
