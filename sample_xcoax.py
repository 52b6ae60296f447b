"""Talk to BackGPT: you give an ending, it writes what led there.

    python sample_xcoax.py
    python sample_xcoax.py --prompt "The end." --num-samples 3 --max-new-tokens 200 --temperature 0.7
    python sample_xcoax.py tinystories < endings.txt

A model that writes forwards (--order forward) goes on from a beginning instead.
"""

import sys

from config import SampleConfig
from dialogue import Dialogue, load_engine
from errors import run
from flags import read_flags
from presets import SAMPLE_PRESETS
from screen import Screen
from writing import Endings

GREETING = "Type an ending and press Enter: it writes what led there. `help` shows the settings, Ctrl-D leaves."


def main() -> None:
    config: SampleConfig = read_flags(SAMPLE_PRESETS, __doc__)
    checkpoint, engine = load_engine(config, "pretraining")
    if checkpoint.stage == "tuning":
        print(f"{checkpoint.path} was tuned on instructions; sample_xcoax_instruct.py asks it as it was taught", file=sys.stderr)
    form = Endings(checkpoint.tokenizer, checkpoint.order, checkpoint.model_config.block_size)
    dialogue = Dialogue(Screen(), engine, form, best_first=False, at_the_beginning=checkpoint.order == "backward")
    dialogue.run(config, config.prompt, "ending", GREETING)


if __name__ == "__main__":
    run(main)
