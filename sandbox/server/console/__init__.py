"""The console: the API's operations as pages in a browser."""
