"""How good a model is: language, recovery of instructions, HellaSwag, intervals, the report.

It may use every other room.
"""
