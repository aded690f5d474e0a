"""Creates over HTTP beside the database's own benchmark, and the way from a create to its webhook."""
