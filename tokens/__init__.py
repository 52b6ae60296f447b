"""Strings and ids: word reversal, the tokenizer, the prompt format.

It may use config and system.
"""
