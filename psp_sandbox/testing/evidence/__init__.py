"""Evidence: files that show what was tried and how it ended, for people and for CI systems."""
