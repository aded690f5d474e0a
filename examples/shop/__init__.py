"""A small marketplace that pays its sellers. README.md says which rules keep the money right."""
