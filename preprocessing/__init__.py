"""Owns the way from text to shards: sources (local files, the hub), chunks, worker processes, the journal of a run, the toy world.

May use formats, tokens, config and presets, and system. It exports nothing: import from its modules.
"""
