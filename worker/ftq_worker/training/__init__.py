"""Choosing settings, training and scoring a model."""
