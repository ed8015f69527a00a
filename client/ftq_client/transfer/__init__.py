"""The ways by which a person's own files reach the workers, and results come back."""
