"""Sampling at a terminal or in a pipe: generated text is shown while it grows, then in full with its speed, or as JSON for a program."""

import sys
import time

from config import SamplerConfig
from sampling.engine import Engine
from sampling.generation import GeneratedText, Prompter, text_as_row
from sampling.prompt_settings import PromptSettings
from sampling.repl import at_terminal, read_lines, run_repl
from sampling.sampler import sampling_params
from system.errors import BAD_FLAGS, UserError
from system.escapes import escape_controls
from system.json_text import to_json
from system.signals import Interrupt
from system.terminal import Screen

SEPARATOR = "---"  # a line between the texts of several prompts in a pipe: each of them may have empty lines


class TerminalSampler:
    """An engine, and the screen on which its texts appear."""

    def __init__(self, screen: Screen, engine: Engine, prompter: Prompter, best_first: bool, grows_left: bool) -> None:
        self._screen = screen
        self._engine = engine
        self._prompter = prompter
        self._best_first = best_first  # sort several texts by score, and show the scores
        self._grows_left = grows_left  # in the order of a reader, new words appear on the left

    def generate(self, given: str, config: SamplerConfig, interrupt: Interrupt) -> None:
        """Generate texts, show them, and report the speed and why they ended early."""
        given = given.encode("utf-8", "replace").decode()  # a terminal can send invalid UTF-8
        request, notice = self._prompter.request(given, config.num_samples, config.max_new_tokens)
        if notice:
            self._notify(notice)
        if self._screen.console.is_terminal:
            self._screen.say(f"{self._prompter.generated_label}:")
        texts = [GeneratedText() for _ in range(config.num_samples)]
        params = sampling_params(config)
        started = time.monotonic()
        with self._screen.live_text(self._grows_left and not config.raw) as live:
            for event in self._engine.run([request], params, self._prompter.stop_ids):
                texts[event.sample].add(event)
                if interrupt.pressed:
                    break
                if live.is_due:
                    live.draw([self._prompter.text(given, text.ids, config.raw) for text in texts if text.tokens])
        seconds = time.monotonic() - started
        if warning := self._engine.pop_warning():
            self._notify(warning)
        texts = [text for text in texts if text.tokens or text.finish_reason] or texts[:1]  # after Ctrl-C some may not have started
        if config.format == "jsonl":
            self._print_rows(given, texts, config, params.seed)
        else:
            self._show(given, texts, config)
        if self._screen.console.is_terminal:
            tokens = sum(text.tokens for text in texts)
            early_ends = dict.fromkeys(self._early_end(text, config) for text in texts)
            self._screen.say(
                f"{tokens} token{'s' * (tokens != 1)} in {seconds:.{1 if seconds >= 1 else 2}f} s, "
                f"{tokens / max(seconds, 1e-9):.0f} tokens/s" + "".join(early_ends)
            )

    def generate_once(self, given: str, config: SamplerConfig) -> None:
        """Generate without a prompt: Ctrl-C ends the text, and the script too."""
        with Interrupt() as interrupt:
            self.generate(given, config, interrupt)
        if interrupt.pressed:
            raise KeyboardInterrupt

    def run(self, config: SamplerConfig, text: str, greeting: str) -> None:
        """Generate for the given text; without one, for each line of a pipe, or at the interactive prompt."""
        if text or not at_terminal():
            is_divided = not (self._best_first or self._screen.console.is_terminal or config.format == "jsonl")
            for number, line in enumerate([text] if text else read_lines()):
                if number and is_divided:
                    self._screen.show(SEPARATOR)
                self.generate_once(line, config)
            return
        if config.format == "jsonl":
            raise UserError(f"--format jsonl: give a text with --{self._prompter.given_field}, or lines in a pipe", BAD_FLAGS)
        settings = PromptSettings(config)
        label = self._prompter.given_label
        run_repl(self._screen, settings, label, greeting, lambda text, interrupt: self.generate(text, settings.config, interrupt))

    def _print_rows(self, given: str, texts: list[GeneratedText], config: SamplerConfig, seed: int) -> None:
        for text in sorted(texts, key=lambda text: -text.logprob_per_token) if self._best_first else texts:
            row = text_as_row(self._prompter, given, text, config.raw)
            print(to_json({self._prompter.given_field: given, **row, "seed": seed}), flush=True)

    def _show(self, given: str, texts: list[GeneratedText], config: SamplerConfig) -> None:
        if self._best_first:
            texts = sorted(texts, key=lambda text: -text.logprob_per_token)
        shown = [self._prompter.text(given, text.ids, config.raw) for text in texts]
        if len(texts) == 1:
            self._screen.show(shown[0])
        elif self._best_first:
            for index, (text, line) in enumerate(zip(texts, shown, strict=True)):
                times = shown.count(line) if self._screen.console.is_terminal else 1  # a program gets a line for each text
                if times == 1 or line not in shown[:index]:
                    self._screen.show(f"{text.logprob_per_token:.3f}\t{line}" + (f"  ({times} times)" if times > 1 else ""))
        else:
            for number, text_shown in enumerate(shown, start=1):
                self._screen.show(f"[{number}/{len(shown)}]\n{text_shown}")

    def _notify(self, notice: str) -> None:
        if self._screen.console.is_terminal:
            self._screen.say(notice)
        else:
            print(escape_controls(notice), file=sys.stderr)

    def _early_end(self, text: GeneratedText, config: SamplerConfig) -> str:
        if text.finish_reason == "tokens":
            return f"; cut off after {config.max_new_tokens} tokens (tokens=... sets more)"
        if text.finish_reason == "context":
            return f"; the context of {self._engine.model.config.block_size} tokens is full"
        if text.finish_reason == "stop":
            return "" if text.ids else "; the model stopped immediately and wrote nothing"
        return "; stopped by Ctrl-C"
