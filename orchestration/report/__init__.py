"""Reports: versions and runs as one HTML page that needs nothing beside itself."""
