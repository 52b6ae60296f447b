"""Settings that can be changed at the prompt, and the commands that change them."""

import dataclasses
import difflib
import os
import re

from config import SamplerConfig
from sampling.sampler import SamplingParams
from system.errors import UserError

SETTINGS = {  # the name at the prompt, and the field of the configuration
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "tokens": "max_new_tokens",
    "samples": "num_samples",
    "seed": "seed",
}
COMMANDS = ("help", "raw", "settings", "quit", "exit")
HELP = """  temp=0.8      above 1 bolder, below 1 more careful, 0 always the most likely token
  top_k=200     sample from this many of the most likely tokens; 0 is off
  top_p=0.95    sample from the most likely tokens that together have this probability; 1 is off
  min_p=0.05    sample from tokens with at least this share of the highest probability; 0 is off
  tokens=500    maximum number of tokens in a text
  samples=3     texts for each prompt
  seed=7        the same seed gives the same texts; seed=off gives other texts each time
  raw           switch between the order of a reader and the order of the model
  settings      show the settings
  help          show this help
  quit          leave, like Ctrl-D
  Ctrl-C stops a text that is being generated. A line that starts with a space is never a command."""


class PromptSettings:
    """The settings of a session, changed by commands."""

    def __init__(self, config: SamplerConfig) -> None:
        self.config = config

    def run_command(self, line: str) -> str | None:
        """Run a command and return its answer; None if the line is not a command."""
        if line.startswith(" "):
            return None
        word = line.strip().lower()
        if word in ("help", "?"):
            return HELP
        if word == "settings":
            return self.describe()
        if word == "raw":
            self.config = dataclasses.replace(self.config, raw=not self.config.raw)
            return "the order of the model" if self.config.raw else "the order of a reader"
        if word in ("raw=on", "raw=off"):
            self.config = dataclasses.replace(self.config, raw=word == "raw=on")
            return word
        assignment = re.fullmatch(r"([\w-]+)\s*=\s*(\S*)", word) or re.fullmatch(rf"({'|'.join(SETTINGS)})\s+([\d.]+|off)", word)
        return self._set(assignment[1], assignment[2]) if assignment and assignment[1] in SETTINGS else None

    @staticmethod
    def suggest(line: str) -> str | None:
        """A suggestion for a line that is nearly a command; None for other lines and for several lines."""
        if line.startswith(" ") or "\n" in line:
            return None
        name, is_assignment, _ = line.strip().lower().replace("-", "_").partition("=")
        if not is_assignment:
            near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.8)
            return f"did you mean {near[0]}? To use it as a text, start the line with a space" if near else None
        near = difflib.get_close_matches(name.strip(), [*SETTINGS, *SETTINGS.values()], n=1, cutoff=0.75)
        short = {field: short for short, field in SETTINGS.items()}
        return f"no setting {name.strip()}; did you mean {short.get(near[0], near[0])}? `help` shows all settings" if near else None

    def _set(self, name: str, value: str) -> str:
        field = SETTINGS[name]
        try:
            changed: float | int | None
            if name == "seed" and value in ("off", "none"):
                changed = None
            elif name in ("temp", "top_p", "min_p"):
                changed = float(value)
            else:
                changed = int(value)
            config = dataclasses.replace(self.config, **{field: changed})  # type: ignore[arg-type]  # by name
            config.check()
        except ValueError:
            return f"{name}={value}: expected {'a number' if name in ('temp', 'top_p', 'min_p') else 'a whole number'}; nothing changed"
        except UserError as error:
            return f"{str(error).replace('--' + field.replace('_', '-') + ' ', name + '=')}; nothing changed"
        self.config = config
        return f"{name}={'off' if changed is None else changed}"

    def describe(self) -> str:
        """All settings, as a person would type them."""
        values = {name: getattr(self.config, field) for name, field in SETTINGS.items()}
        return (
            "  ".join(f"{name}={'off' if value is None else value}" for name, value in values.items())
            + f"  raw is {'on' if self.config.raw else 'off'}"
        )


def sampling_params(config: SamplerConfig) -> SamplingParams:
    """The settings as the engine takes them; without a seed, a new random one."""
    seed = int.from_bytes(os.urandom(8), "big") >> 1 if config.seed is None else config.seed
    return SamplingParams(config.max_new_tokens, config.temperature, config.top_k, config.top_p, config.min_p, seed)
