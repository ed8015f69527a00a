"""The first process of `ftq worker`: starts, restarts and ends the others."""
