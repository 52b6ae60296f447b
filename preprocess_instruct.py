"""Turn pairs of instruction and response into token shards: clean, cut what is too long, reverse the words, encode, write.

    python preprocess_instruct.py --vocab-size 8888
    python preprocess_instruct.py --input my_pairs.jsonl --data-dir data/my-pairs --tokenizer data/xcoax

A pair is a row with an instruction (or prompt, question), an output (or response, completion, answer, chosen) and optionally an input
(or context), or a row with messages or conversations; flags name other fields. Use the tokenizer of the model to tune. You can stop the
script at any time; run the same command again to resume.
"""

import time
from pathlib import Path

from system.startup import run_script

from preprocessing.earlier_data import like_data, likeness
from preprocessing.given_tokenizer import load_given_tokenizer, with_its_size
from preprocessing.instruct_pairs import pair_settings, preprocess_pairs
from preprocessing.journal import open_finished
from preprocessing.pipeline import unused_flags
from presets import INSTRUCT_PRESETS
from system.command_line import given_flags, read_flags
from system.escapes import tell
from system.files import lock_folder
from system.settings import describe_settings


def main() -> None:
    started = time.monotonic()
    config = with_its_size(read_flags(INSTRUCT_PRESETS, __doc__, imitate=like_data), given_flags())
    folder = Path(config.data_dir)
    tokenizer = load_given_tokenizer(config.tokenizer)
    settings = pair_settings(config, tokenizer)
    if dataset := open_finished(folder, "pairs", settings):
        tell(f"{folder} is already finished: {dataset.summary()}")
        return
    tell(describe_settings(config, *likeness(config, settings), unused=unused_flags(config)))
    with lock_folder(folder, "--data-dir"):
        dataset = open_finished(folder, "pairs", settings) or preprocess_pairs(config, folder, settings, tokenizer)
    tell(f"{folder} is finished: {dataset.summary()}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    run_script(main)
