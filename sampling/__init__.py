"""What a model generates and how it scores: inference weights, KV cache, engine, scoring, the terminal prompt, jobs over files.

It may use formats, tokens, model.py, config.py and system. It does not know preprocessing, training or evaluation.
"""
