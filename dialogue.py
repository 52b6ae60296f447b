"""One turn with a model: a text goes in, what is written of it appears."""

import sys
import time
from pathlib import Path

import torch

from checkpoint import Checkpoint, load_checkpoint
from config import Stage, WriteConfig
from device import choose_device, choose_dtype
from engine import Engine
from errors import BAD_FLAGS, UserError
from lighter import lighten
from repl import Interrupt, Settings, at_terminal, converse, read_lines, sampling_of
from screen import Screen
from writing import Form, Written

ROWS = 8  # texts written at once


def load_engine(config: WriteConfig, stage: Stage, rows: int = ROWS) -> tuple[Checkpoint, Engine]:
    """The checkpoint that the flags name, and its model made ready to write."""
    checkpoint = load_checkpoint(Path(config.model_path), stage)
    device = choose_device(config.device)
    if config.quantize == "int8" and device.type != "cpu":
        raise UserError(f"--quantize int8: on the CPU only, and this is {device.type}. Add --device cpu, or leave it out", BAD_FLAGS)
    dtype = choose_dtype(config.dtype, device)
    model = lighten(checkpoint.make_model(torch.device("cpu")), dtype, config.quantize == "int8").to(device)
    return checkpoint, Engine(model, rows, graphs=True)


class Dialogue:
    """A model and the screen on which it writes."""

    def __init__(self, screen: Screen, engine: Engine, form: Form, best_first: bool, at_the_beginning: bool) -> None:
        self._screen = screen
        self._engine = engine
        self._form = form
        self._best_first = best_first  # several texts with their scores, the likeliest first
        self._at_the_beginning = at_the_beginning  # where new words appear, in the order of a reader

    def turn(self, given: str, config: WriteConfig, interrupt: Interrupt) -> None:
        """Write, show, and say how fast it was and why it ended."""
        given = given.encode("utf-8", "replace").decode()  # a terminal can send what is no text
        request, notice = self._form.request(given, config.num_samples, config.max_new_tokens)
        if notice:
            self._tell(notice)
        texts = [Written() for _ in range(config.num_samples)]
        started = time.monotonic()
        with self._screen.growing(self._at_the_beginning and not config.raw) as growing:
            for event in self._engine.run([request], sampling_of(config), self._form.stop):
                texts[event.sample].add(event)
                if interrupt.pressed:
                    break
                if growing.is_due:
                    growing.draw([self._form.text(given, text.ids, config.raw) for text in texts if text.tokens])
        seconds = time.monotonic() - started
        if self._engine.notice:
            self._tell(self._engine.notice)
            self._engine.notice = ""
        texts = [text for text in texts if text.tokens or text.ending] or texts[:1]  # stopped, some may not have begun
        self._show(given, texts, config)
        if self._screen.console.is_terminal:
            tokens = sum(text.tokens for text in texts)
            reasons = dict.fromkeys(self._reason(text, config) for text in texts)
            self._screen.say(f"{tokens} tokens in {seconds:.1f} s, {tokens / max(seconds, 1e-9):.0f} tokens/s" + "".join(reasons))

    def once(self, given: str, config: WriteConfig) -> None:
        """A turn that nobody waits to follow with another: Ctrl-C ends it, and the script."""
        with Interrupt() as interrupt:
            self.turn(given, config, interrupt)
        if interrupt.pressed:
            raise KeyboardInterrupt

    def run(self, config: WriteConfig, text: str, label: str, greeting: str) -> None:
        """Once for the text that was given; without one, for each line of a pipe, or with the person at the terminal."""
        if text or not at_terminal():
            for line in [text] if text else read_lines():
                self.once(line, config)
            return
        settings = Settings(config)
        converse(self._screen, settings, label, greeting, lambda line, interrupt: self.turn(line, settings.config, interrupt))

    def _show(self, given: str, texts: list[Written], config: WriteConfig) -> None:
        if self._best_first:
            texts = sorted(texts, key=lambda text: -text.logprob_per_token)
        read = [self._form.text(given, text.ids, config.raw) for text in texts]
        if len(texts) == 1:
            self._screen.show(read[0])
        elif self._best_first:
            for number, (text, written) in enumerate(zip(texts, read, strict=True)):
                times = read.count(written) if self._screen.console.is_terminal else 1  # a program gets a line for each
                if times == 1 or written not in read[:number]:
                    self._screen.show(f"{text.logprob_per_token:.3f}\t{written}" + (f"  ({times} times)" if times > 1 else ""))
        else:
            for number, written in enumerate(read, start=1):
                self._screen.show(f"[{number}/{len(read)}]\n{written}")

    def _tell(self, notice: str) -> None:
        if self._screen.console.is_terminal:
            self._screen.say(notice)
        else:
            print(notice, file=sys.stderr)

    def _reason(self, text: Written, config: WriteConfig) -> str:
        if text.ending == "tokens":
            return f"; cut off after {config.max_new_tokens} tokens"
        if text.ending == "context":
            return f"; the context of {self._engine.model.config.block_size} tokens is full"
        return "" if text.ending == "stop" else "; stopped by Ctrl-C"
