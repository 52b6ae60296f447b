"""From text to shards: sources, the hub, chunks, worker processes, the journal of a run, the toy world.

It may use formats and the rooms below.
"""
