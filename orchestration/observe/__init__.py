"""What a server does, for those who run it: counts for Prometheus, and a line of JSON for each request."""
