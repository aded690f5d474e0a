"""The methods of the client, by noun."""
# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.
