"""What a model generates and how it scores: engine, KV cache, scoring, the terminal prompt, jobs over files.

It may use formats and the rooms below; not preprocessing.
"""
