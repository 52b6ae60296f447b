"""A checkpoint becomes files that other programs load without any code of ours.

`hugging_face_export.py` and `gguf_export.py` write them, `check.py` compares what they compute with what we compute.
"""
