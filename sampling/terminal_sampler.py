"""Sampling at a terminal or in a pipe: texts are shown while they grow, then in full with their speed, or as JSON for a program."""

import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from config import SamplerConfig
from sampling.engine import Engine, TokenEvent
from sampling.generation import GeneratedText, Prompter, text_as_row
from sampling.past_context import generate_past_context
from sampling.sampler import sampling_params
from system.amounts import amount
from system.escapes import escape_controls, tell
from system.json_text import to_json
from system.live_text import REFRESH_SECONDS
from system.passages import Passage, given_characters
from system.signals import Interrupt
from system.terminal import Screen

NOTHING, STOPPED = "the model stopped immediately and wrote nothing", "stopped by Ctrl-C"  # how a text ended
DRAWN_SEEDS = range(10_000, 100_000)  # five digits, which a person can type again


@dataclass(frozen=True)
class ShownText:
    """A text as it was shown, and what the model generated for it."""

    passage: Passage
    generated: GeneratedText
    as_read: str  # in the order of a reader, also where that of the model is shown


@dataclass(frozen=True)
class Generated:
    """The texts of a prompt in the order in which they were shown, the settings with which they come again, the line below them."""

    texts: list[ShownText]
    config: SamplerConfig
    report: str


class TerminalSampler:
    """An engine, and the screen on which its texts appear."""

    def __init__(self, screen: Screen, engine: Engine, prompter: Prompter, best_first: bool, grows_left: bool) -> None:
        self.screen = screen
        self.prompter = prompter
        self._engine = engine
        self.best_first = best_first  # sort several texts by score, and show the scores
        self._grows_left = grows_left  # in the order of a reader, new words appear on the left

    def generate(self, given: str, config: SamplerConfig, interrupt: Interrupt) -> Generated:
        """Generate texts, show them, report the speed and why they ended early."""
        given = given.encode("utf-8", "replace").decode()  # a terminal can send invalid UTF-8
        config = config if config.seed is not None else replace(config, seed=random.SystemRandom().choice(DRAWN_SEEDS))
        request, notice = self.prompter.request(given, config.num_samples, config.max_new_tokens)
        if notice:
            self._notify(notice)
        if self.screen.is_terminal:
            self.screen.say(f"{self.prompter.generated_label}:")
        texts = [GeneratedText() for _ in range(config.num_samples)]
        events = generate_past_context(self._engine, request, sampling_params(config), self.prompter.stop_ids, self.prompter.crop)
        limit, seconds = self._grow(given, texts, events, config, interrupt)
        if warning := self._engine.pop_warning():
            self._notify(warning)
        texts = [text for text in texts if text.tokens or text.finish_reason] or texts[:1]  # after Ctrl-C some may not have started
        if self.best_first:
            texts = sorted(texts, key=lambda text: -text.logprob_per_token)
        shown = []
        for text in texts:
            passage = self._finished(given, text, config, limit)
            as_read = self._finished(given, text, replace(config, raw=False), limit).text if config.raw else passage.text
            shown.append(ShownText(passage, text, as_read))
        if config.format == "jsonl":
            for text in texts:
                row = text_as_row(self.prompter, given, text, config.raw)
                line = to_json({self.prompter.given_field: given, **row, "seed": config.seed})
                print(escape_controls(line) if self.screen.is_terminal else line, flush=True)
        else:
            self._show(shown)
        report = self._report(shown, request.prompt, config, seconds, is_stopped=limit is not None)
        if self.screen.is_terminal:
            self.screen.say(report)
        return Generated(shown, config, report)

    def generate_once(self, given: str, config: SamplerConfig) -> list[ShownText]:
        """Generate without a prompt: Ctrl-C ends the text, and the script too."""
        with Interrupt() as interrupt:
            generated = self.generate(given, config, interrupt)
        if interrupt.pressed:
            raise KeyboardInterrupt
        return generated.texts

    def _grow(
        self, given: str, texts: Sequence[GeneratedText], events: Iterator[TokenEvent], config: SamplerConfig, interrupt: Interrupt
    ) -> tuple[int | None, float]:
        """Generate and draw until all texts are complete or Ctrl-C stops them.

        How many words were drawn, if a pace held them back; the seconds, without those in which Ctrl-Z had stopped the process.
        """
        is_paced = bool(config.pace) and self.screen.is_live
        started = time.monotonic()

        def seconds() -> float:
            return time.monotonic() - started - live.suspended

        def words() -> int:
            return int(seconds() * config.pace)

        def draw() -> bool:
            """Whether all words are on the screen."""
            made = [(self._passage(given, text, config), text) for text in texts if text.tokens]
            if is_paced:  # only words that are whole
                whole = [passage if text.finish_reason else passage.keep_words(max(passage.words - 1, 0)) for passage, text in made]
                live.draw([passage.keep_words(words()) for passage in whole])
                return all(passage.words <= words() for passage in whole)
            live.draw([passage for passage, _ in made])
            return True

        with self.screen.live_text() as live:
            for event in events:
                texts[event.sample].add(event)
                if interrupt.pressed:
                    break
                if live.is_due:
                    draw()
            while is_paced and not interrupt.pressed and not draw():
                time.sleep(REFRESH_SECONDS)
        return words() if is_paced and interrupt.pressed else None, seconds()

    def _passage(self, given: str, text: GeneratedText, config: SamplerConfig) -> Passage:
        """The text so far."""
        grows_left = self._grows_left and not config.raw
        whole = self.prompter.text(given, text.ids, config.raw)
        return Passage(whole, given_characters(whole, self.prompter.text(given, [], config.raw), grows_left), grows_left)

    def _finished(self, given: str, text: GeneratedText, config: SamplerConfig, limit: int | None) -> Passage:
        """The text as it stays. The outermost word of one that was stopped or cut off may lack letters."""
        passage = self._passage(given, text, config)
        passage = passage if text.finish_reason == "stop" else passage.without_broken_word()
        return passage if limit is None else passage.keep_words(limit)

    def _show(self, shown: Sequence[ShownText]) -> None:
        if len(shown) == 1:
            self.screen.show_passage(shown[0].passage)
        elif self.best_first:
            lines = [text.passage.text for text in shown]
            for index, text in enumerate(shown):
                times = lines.count(lines[index]) if self.screen.is_terminal else 1  # a program gets a line for each text
                if times == 1 or lines[index] not in lines[:index]:
                    passage = text.passage if times == 1 else text.passage._replace(text=f"{text.passage.text}  ({times} times)")
                    self.screen.show_passage(passage, f"{text.generated.logprob_per_token:.3f}\t")
        else:
            for number, text in enumerate(shown, start=1):
                if number > 1 and self.screen.is_terminal:
                    self.screen.show("")
                self.screen.show(f"[{number}/{len(shown)}]")
                self.screen.show_passage(text.passage)

    def _report(self, shown: Sequence[ShownText], prompt: Sequence[int], config: SamplerConfig, seconds: float, is_stopped: bool) -> str:
        """The line below the texts: the speed, the seed, and what a reader should know about how they ended."""
        tokens = sum(text.generated.tokens for text in shown)
        speed = f"{amount(tokens, 'token')} in {seconds:.{1 if seconds >= 1 else 2}f} s"
        speed += "" if config.pace else f", {tokens / max(seconds, 1e-9):.0f} tokens/s"
        ends = list(dict.fromkeys(self._early_end(text.generated, config) for text in shown))
        if any(text.generated.ids for text in shown):
            ends = [end for end in ends if end != NOTHING]
        if is_stopped:  # the model was ahead of what the pace had shown
            words = sum(text.passage.words for text in shown)
            speed, ends = f"{amount(words, 'word')} in {seconds:.1f} s", [STOPPED]
        notes = [speed, *ends]
        context = self._engine.model.config.block_size
        if any(len(prompt) + len(text.generated.ids) > context for text in shown):
            notes.append(f"past the context of {context} tokens the model read only the nearest half again")
        if config.temperature:
            notes.append(f"seed {config.seed}")
        return "; ".join(filter(None, notes))

    def _notify(self, notice: str) -> None:
        if self.screen.is_terminal:
            self.screen.say(notice)
        else:
            tell(notice, sys.stderr)

    def _early_end(self, text: GeneratedText, config: SamplerConfig) -> str:
        if text.finish_reason == "tokens":
            return f"cut off after {config.max_new_tokens} tokens (tokens=... sets more)"
        if text.finish_reason == "context":
            return f"the context of {self._engine.model.config.block_size} tokens is full"
        if text.finish_reason == "stop":
            return "" if text.ids else NOTHING
        return STOPPED
