"""Reading, understanding, cleaning, splitting and tokenizing rows."""
