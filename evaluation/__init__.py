"""Evaluation: how good a model is, measured on held-out documents, held-out instruction pairs and HellaSwag, and reported.

May use every other room: training, sampling, preprocessing, formats, tokens and system. Import its modules directly; the
package itself exports nothing.
"""
