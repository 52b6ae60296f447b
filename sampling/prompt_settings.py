"""Settings that can be changed at the prompt, and the commands that change them."""

import dataclasses
import difflib
import re

from config import SamplerConfig
from system.errors import UserError, require

SETTINGS = {  # the name at the prompt, and the field of the configuration
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "tokens": "max_new_tokens",
    "samples": "num_samples",
    "seed": "seed",
    "pace": "pace",
}
FRACTIONS = ("temp", "top_p", "min_p", "pace")  # the others are whole numbers
# Other spellings that people bring along; dashes count as underscores.
SPELLINGS = {**{field: name for name, field in SETTINGS.items()}, "max_tokens": "tokens", "n": "samples", "topk": "top_k", "topp": "top_p"}
SWITCH = {"on": True, "true": True, "off": False, "false": False}
LEAVING = ("quit", "exit", "bye", "q")
SLASH_COMMANDS = ("again", "more", "pick", "undo", "clear", "save", "picture")  # with a slash, since they may be texts too
COMMANDS = ("help", "raw", "settings", "reset", *LEAVING)
ASSIGNMENT = r"([a-z_][a-z_-]*)\s*[=:]\s*([^\s,=]*(?:,\d[^\s,=]*)?)"  # a comma before a digit is a decimal one
ASSIGNMENTS = rf"{ASSIGNMENT}(?:\s*[,\s]\s*{ASSIGNMENT})*"
HELP = """  temp=0.8      above 1 bolder, below 1 more careful, 0 always the most likely token
  top_k=200     sample from this many of the most likely tokens; 0 is off
  top_p=0.95    sample from the most likely tokens that together have this probability; 1 is off
  min_p=0.05    sample from tokens with at least this share of the highest probability; 0 is off
  tokens=500    maximum number of tokens in a text
  samples=3     texts for each prompt
  seed=7        the same seed gives the same texts; seed=off gives other texts each time
  pace=5        words a second that appear; 0 is as fast as the model writes
  raw           switch between the order of a reader and the order of the model
  settings      show the settings
  reset         go back to the settings of the start
  help          show this help
  quit          leave, like Ctrl-D
  /again        another text for the same prompt, with a new seed
  /more         BackGPT goes on from the text that stands
  /pick 2       of several samples the second one stands
  /undo         take the last step back
  /clear        clear the screen
  /save [file]  keep everything of this session in a text file
  /picture file.svg  the text that stands as a picture, its words colored by their surprise
  Several settings fit on one line: temp=0.8 top_k=200. The other commands may start with a slash too: /help.
  Ctrl-C stops a text that is being generated. A line that starts with a space is never a command."""


def settings_line(config: SamplerConfig) -> str:
    """What a person types at the prompt to have the settings on which the texts depend."""
    values = {name: getattr(config, field) for name, field in SETTINGS.items() if name != "pace"}
    return " ".join(f"{name}={value}" for name, value in values.items()) + f" raw={'on' if config.raw else 'off'}"


def require_fitting(max_new_tokens: float | None, most_tokens: int | None) -> None:
    """Refuse more tokens than the context can hold, where that bounds a text."""
    if max_new_tokens is not None and most_tokens is not None:
        message = f"--max-new-tokens {max_new_tokens}: the context of this model holds at most {most_tokens}"
        require(max_new_tokens <= most_tokens, message)


def is_leaving(line: str) -> bool:
    """Whether a line ends the session."""
    return not line.startswith(" ") and line.strip().lower().lstrip("/:") in LEAVING


class PromptSettings:
    """The settings of a session, changed by commands."""

    def __init__(self, config: SamplerConfig, most_tokens: int | None = None) -> None:
        self._start = config
        self._most_tokens = most_tokens  # that a text can have, where the context bounds it
        self.config = config

    def run_command(self, line: str) -> str | None:
        """Run a command and return its answer; None if the line is not a command."""
        if line.startswith(" ") or "\n" in line:  # what was pasted is a text
            return None
        word = line.strip().lower().removeprefix("/")
        if word in ("help", "?"):
            return HELP
        if word == "settings":
            return self.describe()
        if word == "reset":
            self.config = self._start
            return self.describe()
        if word == "raw":
            self.config = dataclasses.replace(self.config, raw=not self.config.raw)
            return "the order of the model" if self.config.raw else "the order of a reader"
        return self._set(_assignments(word))

    @staticmethod
    def suggest(line: str) -> str | None:
        """A suggestion for a line that is nearly a command; None for other lines and for several lines."""
        if line.startswith(" ") or "\n" in line:
            return None
        word = line.strip().lower().removeprefix("/")
        as_text = "To use it as a text, start the line with a space"
        names = [name.replace("-", "_") for name, _ in re.findall(ASSIGNMENT, word)] if re.fullmatch(ASSIGNMENTS, word) else []
        known = [*SETTINGS, *SPELLINGS, "raw"]
        unknown = [name for name in names if name not in known]
        if near := [match for name in unknown for match in difflib.get_close_matches(name, known, n=1, cutoff=0.75)]:
            return f"no setting {unknown[0]}; did you mean {SPELLINGS.get(near[0], near[0])}? `help` shows all settings"
        if unknown and len(unknown) < len(names):
            return f"no setting {unknown[0]}; `help` shows all settings. {as_text}"
        if not names and (near := difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.75)):
            return f"did you mean {near[0]}? {as_text}"
        if line.startswith("/"):
            near = difflib.get_close_matches(word.partition(" ")[0], SLASH_COMMANDS, n=1)
            return f"no command {line.strip()}; " + (f"did you mean /{near[0]}?" if near else "`help` shows all.") + f" {as_text}"
        return None

    def _set(self, assignments: list[tuple[str, str]]) -> str | None:
        """Change several settings, or none if one of the values is wrong."""
        if not assignments:
            return None
        changes: dict[str, float | int | bool | None] = {}
        for name, value in assignments:
            if name == "raw":
                if value not in SWITCH:
                    return f"raw={value}: expected on or off; nothing changed"
                changes["raw"] = SWITCH[value]
                continue
            try:
                is_off = name == "seed" and value in ("off", "none")
                number = None if is_off else float(value.replace(",", ".")) if name in FRACTIONS else int(value)
            except ValueError:
                return f"{name}={value}: expected {'a number' if name in FRACTIONS else 'a whole number'}; nothing changed"
            changes[SETTINGS[name]] = number
        try:
            require_fitting(changes.get("max_new_tokens"), self._most_tokens)
            config = dataclasses.replace(self.config, **changes)  # type: ignore[arg-type]  # by name
            config.check()
        except UserError as error:
            message = str(error)
            for name, field in SETTINGS.items():
                message = message.replace(f"--{field.replace('_', '-')} ", f"{name}=")
            return f"{message}; nothing changed"
        self.config = config
        shown = {name: changes[SETTINGS.get(name, name)] for name, _ in assignments}
        return "  ".join(
            f"{name}={'on' if value is True else 'off' if value in (None, False) and name in ('raw', 'seed') else value}"
            for name, value in shown.items()
        )

    def describe(self) -> str:
        """All settings, as a person would type them."""
        values = {name: getattr(self.config, field) for name, field in SETTINGS.items()}
        return (
            "  ".join(f"{name}={'off' if value is None else value}" for name, value in values.items())
            + f"  raw is {'on' if self.config.raw else 'off'}"
        )


def _assignments(line: str) -> list[tuple[str, str]]:
    """The settings of a line such as `temp=0.8 top_k=200`, under their names at the prompt; empty if it has anything else."""
    if match := re.fullmatch(r"([a-z_-]+)\s+([\d.,]+|off)", line):  # `temp 0.8`
        line = f"{match[1]}={match[2]}"
    if not re.fullmatch(ASSIGNMENTS, line):
        return []
    found = [(name.replace("-", "_"), value) for name, value in re.findall(ASSIGNMENT, line)]
    named = [(SPELLINGS.get(name, name), value) for name, value in found]
    return named if all(name in (*SETTINGS, "raw") for name, _ in named) else []
