"""The training loop and what it trains on: pretraining, tuning, optimizers, loss, metrics, resuming.

It may use sampling (to show text while training), formats and the rooms below; not preprocessing.
"""
