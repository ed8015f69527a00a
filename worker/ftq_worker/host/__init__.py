"""The processes of `ftq worker`: guard, agent, zygote, Celery worker, and the children."""
