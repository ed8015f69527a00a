"""What a job trains on, for people: rows as the model sees them, lengths, what was left out."""
