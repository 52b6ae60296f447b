"""Strings and ids: word reversal, the tokenizer, the prompt format.

Uses config and system.
"""
