"""The files that the stages pass to each other, and what a row or a pair in a user's file means.

It may use tokens, model, presets, config and system.
"""
