"""What was written at the prompt, step by step, and the commands that go on from it."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from config import SamplerConfig
from sampling.prompt_settings import SLASH_COMMANDS, PromptSettings
from sampling.surprise import surprising_words
from sampling.terminal_sampler import ShownText, TerminalSampler
from sampling.text_picture import draw_text
from system.errors import UserError
from system.files import write_text
from system.signals import Interrupt

MOST_STEPS = 100  # that /undo can take back: a long session keeps the text of the others, for /save


class Step(NamedTuple):
    """A prompt, the texts that were written for it, and which of them stands."""

    given: str
    texts: list[ShownText]
    picked: int = 0

    @property
    def standing(self) -> str:
        """The text from which the next step may go on."""
        return self.texts[self.picked].as_read


class Session:
    """The steps of a session at the prompt."""

    def __init__(self, sampler: TerminalSampler, config: SamplerConfig) -> None:
        self.settings = PromptSettings(config, sampler.prompter.most_tokens)
        self.screen = sampler.screen
        self._sampler = sampler
        self._steps: list[Step] = []
        self._start = "back at the beginning"  # what is before the steps that are kept
        self._transcript: list[str] = []
        self._saved: set[Path] = set()  # files that this session may overwrite

    def generate(self, given: str, interrupt: Interrupt) -> None:
        """Write texts for a prompt as the next step."""
        self._write(given, self.settings.config, interrupt)

    def command(self, line: str) -> Callable[[Interrupt], None] | None:
        """What a line with a command does, such as /more; None for any other line."""
        name, _, argument = line.strip().removeprefix("/").partition(" ")
        if not line.strip().startswith("/") or line.startswith(" ") or "\n" in line or name not in SLASH_COMMANDS:
            return None
        return lambda interrupt: self._run(name, argument.strip(), interrupt)

    def _run(self, name: str, argument: str, interrupt: Interrupt) -> None:
        if name == "clear":
            self.screen.clear()
            return
        if not self._steps:
            raise UserError(f"/{name}: nothing has been written yet")
        last = self._steps[-1]
        if name == "again":  # with a new seed, also where one is set
            self._write(last.given, dataclasses.replace(self.settings.config, seed=None), interrupt)
        elif name == "more":
            if not self._can_go_on():
                raise UserError("/more: only BackGPT goes on from a text; /again writes another instruction")
            self._write(last.standing, self.settings.config, interrupt)
        elif name == "pick":
            self._pick(last, argument)
        elif name == "undo":
            self._undo()
        elif name == "save":
            self._save(argument)
        else:
            self._draw(last, argument)

    def _write(self, given: str, config: SamplerConfig, interrupt: Interrupt) -> None:
        texts = self._sampler.generate(given, config, interrupt)
        self._steps.append(Step(given, texts))
        if len(self._steps) > MOST_STEPS:
            del self._steps[0]
            self._start = f"only {MOST_STEPS} steps are kept for /undo; /save has the texts before them"
        prompter = self._sampler.prompter
        shown = "\n\n".join(text.passage.text for text in texts)
        self._transcript.append(f"{prompter.given_label}: {given}\n\n{prompter.generated_label}:\n{shown}\n")

    def _pick(self, last: Step, argument: str) -> None:
        if not argument.isdecimal() or not 1 <= int(argument) <= len(last.texts):
            raise UserError(f"/pick {argument}: a number from 1 to {len(last.texts)}")
        self._steps[-1] = last._replace(picked=int(argument) - 1)
        self.screen.say(f"text {argument} stands" + ("; /more goes on from it" if self._can_go_on() else ""))

    def _can_go_on(self) -> bool:
        return bool(self._sampler.prompter.crop([0]))

    def _undo(self) -> None:
        self._steps.pop()
        if not self._steps:
            self.screen.say(self._start)
            return
        last = self._steps[-1]
        self.screen.show_passage(last.texts[last.picked].passage)

    def _save(self, argument: str) -> None:
        """Write the transcript. A file that was there before this session is not overwritten."""
        path = Path(argument or time.strftime("backgpt-%Y%m%d-%H%M%S.txt")).expanduser()
        self._write_file("/save", path, lambda: write_text(path, "\n".join(self._transcript)))

    def _draw(self, last: Step, argument: str) -> None:
        if not argument.endswith(".svg"):
            raise UserError("/picture file.svg: the name of the picture ends with .svg")
        path = Path(argument).expanduser()
        self._write_file("/picture", path, lambda: save_picture(path, self._sampler, last.given, last.texts[last.picked]))

    def _write_file(self, command: str, path: Path, write: Callable[[], None]) -> None:
        """Write a file that is not there yet, or that this session wrote."""
        if path.exists() and path not in self._saved:
            raise UserError(f"{command} {path}: this file exists. Give another name")
        try:
            write()
        except OSError as error:
            raise UserError(f"{command} {path}: {error.strerror}. Give another name") from error
        self._saved.add(path)
        self.screen.say(f"saved {path}")


def save_picture(path: Path, sampler: TerminalSampler, given: str, shown: ShownText) -> None:
    """Write the picture of a text: the words that stand, each colored by its surprise."""
    prompter, generated, grows_left = sampler.prompter, shown.generated, shown.passage.grows_left
    words = surprising_words(
        lambda ids: prompter.text(given, ids, raw=True), generated.ids, generated.logprobs[: len(generated.ids)], grows_left
    )
    excess = sum(len(word.text) for word in words) - len(shown.passage.text)
    while excess > 0:  # the outermost word of a stopped text does not stand
        excess -= len(words.pop(0 if grows_left else -1).text)
    draw_text(path, words, prompter.generated_label, grows_left)
