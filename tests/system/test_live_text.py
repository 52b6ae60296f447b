"""Growing texts on the alternate screen: what stands does not move, and nothing of them stays on the normal one."""

import io
import signal

from rich.console import Console

from system.live_text import ENTER, LEAVE, LiveText, frame
from system.passages import Passage

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def rows(passages: list[Passage], width: int = 20, height: int = 6) -> list[str]:
    shown = [line.plain for line in frame(passages, width, height)]
    assert len(shown) == height
    return shown


def test_a_text_that_grows_to_the_left_stands_at_the_bottom() -> None:
    before: list[str] = []
    for count in range(1, 10):
        now = rows([Passage(" ".join(WORDS[-count:]), 0, True)])
        standing = [row for row in before if row.strip()][1:]  # the topmost line still grows
        assert now[len(now) - len(standing) :] == standing
        before = now
    assert before[-1].endswith("twelve")


def test_a_text_that_grows_to_the_right_stands_at_the_top() -> None:
    assert rows([Passage("one two", 0, False)])[0] == "one two"
    assert rows([Passage("\n".join(WORDS), 0, False)])[0] == "..."
    assert rows([Passage("\n".join(WORDS), 0, False)])[-1] == "twelve"


def test_each_of_several_texts_has_its_place() -> None:
    short, long = Passage("one", 0, True), Passage("\n".join(WORDS[1:]), 0, True)
    shown = rows([short, short, short], height=9)
    assert [number for number, row in enumerate(shown) if row.strip()] == [2, 5, 8]
    assert [number for number, row in enumerate(rows([short, long, short], height=9)) if row.strip() == "one"] == [2, 8]
    assert [row.strip() for row in rows([short, long], height=2)] == ["one", "two"]  # the newest line, where there is room for one
    forward = Passage("\n".join(WORDS), 0, False)
    assert [row.strip() for row in rows([forward] * 3, height=2)] == ["twelve"] * 2


def test_a_long_text_shows_what_is_written_last() -> None:
    shown = rows([Passage("\n".join(WORDS), 0, True)])
    assert shown[0].strip() == "one" and shown[-1] == "..."


def test_ctrl_z_is_handled_only_while_the_alternate_screen_is_shown() -> None:
    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            handled.append(signal.getsignal(signal.SIGTSTP) != signal.SIG_DFL)
            return super().write(text)

    handled: list[bool] = []
    with LiveText(Console(file=Terminal(), force_terminal=True), is_live=True) as live:
        live.draw([Passage("the end", 0, True)])
    assert not handled[0] and not handled[-1] and all(handled[1:-1])  # entering, leaving, drawing


def test_the_normal_screen_is_left_alone() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=30, height=5)
    with LiveText(console, is_live=True) as live:
        live.draw([Passage("the end", 0, True)])
    written = file.getvalue()
    assert written.startswith(ENTER) and written.endswith(LEAVE) and "the end" in written
    file = io.StringIO()
    with LiveText(Console(file=file), is_live=False) as live:
        live.draw([Passage("the end", 0, True)])
    assert file.getvalue() == ""
