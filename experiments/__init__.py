"""Experiments: which recipe reaches a loss with the fewest tokens and seconds."""
