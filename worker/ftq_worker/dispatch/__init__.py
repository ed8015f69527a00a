"""The Celery process of a host: makes dispatch passes, and passes placed phases on to the agent."""
