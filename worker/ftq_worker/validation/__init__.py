"""The checks of the validate phase; `ftq_worker.phases.validate` puts them in order."""
