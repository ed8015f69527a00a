"""What all processes of a host share. No torch and no Celery."""
