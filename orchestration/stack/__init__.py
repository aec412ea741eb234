"""A local Ray head, Prefect server and worker, started detached and stopped by who they are."""
