"""What a session at the prompt keeps of its steps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from config import SampleConfig
from sampling.generation import GeneratedText
from sampling.session import MOST_STEPS, Session
from sampling.terminal_sampler import Generated, ShownText
from system.passages import Passage
from system.signals import Interrupt


def test_a_long_session_keeps_its_latest_steps_and_all_of_its_text(tmp_path: Path) -> None:
    said: list[str] = []
    sampler: Any = SimpleNamespace(
        screen=SimpleNamespace(say=said.append, show_passage=lambda passage: said.append(passage.text)),
        prompter=SimpleNamespace(most_tokens=None, given_label="Prompt", generated_label="Output"),
        generate=lambda given, config, interrupt: Generated([ShownText(Passage(given, 0, True), GeneratedText(), given)], config, ""),
    )
    checkpoint: Any = SimpleNamespace(path=Path("a.pt"), fingerprint="step 1")
    session, interrupt = Session(sampler, SampleConfig(), checkpoint), Interrupt()
    for turn in range(MOST_STEPS + 5):
        session.generate(f"text {turn}", interrupt)
    (save := session.command(f"/save {tmp_path / 'all.txt'}")) and save(interrupt)
    assert (tmp_path / "all.txt").read_text(encoding="utf-8").count("Prompt: text ") == MOST_STEPS + 5
    for _ in range(MOST_STEPS):
        (undo := session.command("/undo")) and undo(interrupt)
    assert said[-2:] == ["text 5", "only 100 steps are kept for /undo; /save has the texts before them"]
