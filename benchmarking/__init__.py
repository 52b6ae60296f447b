"""How fast every stage is on this machine, beside the limit of the machine and beside a plain GPT.

It may use every room below evaluation.
"""
