"""Turn text into token shards: train the tokenizer, reverse the words, encode, write.

    python preprocess_xcoax.py --vocab-size 8888 --num-chunks 1000
    python preprocess_xcoax.py tinystories
    python preprocess_xcoax.py --input my_texts/ --data-dir data/mine --vocab-size 4096
    python preprocess_xcoax.py --like data/mine --data-dir data/mine-forward --order forward

You can stop the script at any time; run the same command again to resume.
"""

import time
from pathlib import Path

from system.startup import run_script

from preprocessing.documents import document_settings, preprocess_documents
from preprocessing.earlier_data import like_data, likeness
from preprocessing.given_tokenizer import with_its_size
from preprocessing.journal import open_finished
from preprocessing.pipeline import unused_flags
from presets import PREPROCESS_PRESETS
from system.command_line import given_flags, read_flags
from system.escapes import tell
from system.files import lock_folder
from system.settings import describe_settings


def main() -> None:
    started = time.monotonic()
    config = with_its_size(read_flags(PREPROCESS_PRESETS, __doc__, imitate=like_data), given_flags())
    folder = Path(config.data_dir)
    settings = document_settings(config)
    if dataset := open_finished(folder, "documents", settings):
        tell(f"{folder} is already finished: {dataset.summary()}")
        return
    tell(describe_settings(config, *likeness(config, settings), unused=unused_flags(config)))
    with lock_folder(folder, "--data-dir"):
        dataset = open_finished(folder, "documents", settings) or preprocess_documents(config, folder, settings)
    tell(f"{folder} is finished: {dataset.summary()}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    run_script(main)
