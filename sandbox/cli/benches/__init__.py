"""Benchmarks: creates over HTTP compared with pgbench, the time from a create to its webhook, and other operations."""
