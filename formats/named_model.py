"""The model that a flag names: a checkpoint, a folder of checkpoints, a Hugging Face folder, or a model on the hub."""

from pathlib import Path

from config import Stage
from formats.checkpoint import BEST, Checkpoint, load_checkpoint
from formats.hub_models import download_model, is_on_hub
from formats.hugging_face_folder import is_hugging_face_folder, read_hugging_face_folder


def load_named_model(name: str, stage: Stage = "pretraining") -> Checkpoint:
    """Read a model. The stage only decides which command is suggested if there is none."""
    if is_on_hub(name):
        path = download_model(name)
        return load_checkpoint(path, stage) if path.suffix == ".pt" else read_hugging_face_folder(path)
    path = Path(name)
    if path.is_dir() and not (path / BEST).is_file() and is_hugging_face_folder(path):
        return read_hugging_face_folder(path)
    return load_checkpoint(path, stage)
