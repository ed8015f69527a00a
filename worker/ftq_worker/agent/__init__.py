"""The process that owns what runs on a host: claims, leases, events. No torch and no Celery."""
