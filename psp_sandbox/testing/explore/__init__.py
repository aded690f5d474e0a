"""Explore: run passing tests again, once for each way the world can misbehave, and compare both sides' books."""
