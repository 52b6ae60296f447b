"""Text for a model that reads and writes backwards, and text from it. Needs nothing but Python and works with any engine."""

from collections.abc import Callable


def reverse_words(text: str) -> str:
    """The lines in reverse order and the words of each line in reverse order. Applied twice it gives the text back."""
    return "\n".join(" ".join(line.split(" ")[::-1]) for line in text.split("\n")[::-1])


def clean(response: str) -> str:
    """A response as it was in training: line breaks of one kind, no white space around it."""
    return response.replace("\r\n", "\n").strip()


def to_prompt(response: str) -> str:
    """The prompt for which BackChat writes an instruction; engines put <|endoftext|> before it themselves, as the tokenizer says.

    With a chat template, give it reverse_words(clean(response)) as the message of the user instead.
    """
    return f"<|im_start|><|response|>{reverse_words(clean(response))}<|im_end|><|im_start|><|instruction|>"


def to_prompt_ids(response: str, encode: Callable[[str, bool], list[int]]) -> list[int]:
    """The ids of the same prompt with <|endoftext|>, in which a response that spells a special token stays text.

    `encode(text, special)` gives the ids of a text in which special tokens are read (True) or are text like any other (False).
    """
    before, after = "<|endoftext|><|im_start|><|response|>", "<|im_end|><|im_start|><|instruction|>"
    return [*encode(before, True), *encode(reverse_words(clean(response)), False), *encode(after, True)]


def from_output(output: str, ending: str = "") -> str:
    """What a model wrote, in the order of a reader; for BackGPT, whose prompt is reverse_words(ending), as one text with its ending."""
    for token in ("<|im_end|>", "<|endoftext|>"):
        output = output.partition(token)[0]
    return reverse_words(reverse_words(ending) + output)
