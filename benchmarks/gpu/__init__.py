"""What ftq does on a card, beside bare TRL in the same run: `make gpu`."""
