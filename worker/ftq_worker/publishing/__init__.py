"""The model card, the push and the proof that it arrived."""
