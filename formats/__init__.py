"""The files that the stages pass to each other, and what a row or a pair in a user's file means.

Shards and checkpoints are where the stages meet. Uses tokens, model, config, presets and system.
"""
