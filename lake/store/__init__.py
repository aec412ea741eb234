"""Keys and bytes: the store in a folder or on S3, objects by digest, small sealed files."""
