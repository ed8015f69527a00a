"""The Celery process of a host: takes doorbells, and places phases on hosts."""
