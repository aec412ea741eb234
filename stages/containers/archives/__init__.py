"""Archives of the web, WARC and ARC, and the HTTP messages in them."""
