"""The Model Context Protocol server of `psp mcp`: tools that let an agent use the sandbox, with the rights of a key."""
