"""PSP Sandbox for Python programs: a typed client, and fixtures for pytest. The sandbox itself runs in processes of its own."""
