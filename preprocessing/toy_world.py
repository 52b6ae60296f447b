"""Owns the toy world of the demo: small stories and pairs of instruction and response, composed from templates.

A dozen people, a dozen animals, a few hundred words. The same seed gives the same world on every machine. Two rules make it a
fair test of a model that writes backwards: a response has exactly one instruction, and a held-out instruction, with all its
responses, occurs nowhere in the training pairs or the stories.
"""

import hashlib
import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from system.files import atomic_write

Item = TypeVar("Item")


class ToyPair(NamedTuple):
    """A row of a pairs file, with the fields of Alpaca. formats.pairs.Pair is what readers make of such a row."""

    instruction: str
    input: str
    output: str


PUBLISHED = (  # the project's two published examples: training pairs with every seed
    ToyPair("What is the cat doing?", "", "The cat is sleeping."),
    ToyPair("Define what Python is.", "", "Python is a high-level programming language."),
)
PAIRS_PER_KIND = 400  # at most, so that no kind of pair dominates

# With one cell per line, these tables would be five times as long.
# fmt: off
WOMEN = ("Anna", "Mia", "Eva", "Ada", "Lily", "Nora")
PEOPLE = (*WOMEN, "Tom", "Ben", "Leo", "Max", "Jack", "Sam")
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "pink")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
THINGS = ("ball", "book", "hat", "cup", "box", "kite", "lamp", "bag", "key", "coat", "boat", "drum", "bell", "clock", "umbrella", "basket")
SPOTS = ("under the table", "on the chair", "behind the door", "in the kitchen", "by the window", "under the bed", "on the shelf")
GOALS = ("the market", "the park", "the lake", "the library", "the farm", "the river", "the forest", "the beach")
PLACES = ("at the market", "in the park", "by the lake", "in the library", "on the farm", "by the river", "in the forest", "on the beach")
MOODS = ("little", "old", "young", "shy", "brave", "clever")
ANIMALS = (  # name, home, food
    ("cat", "in a small house", "fish"), ("dog", "on a farm", "bones"), ("fox", "in the forest", "berries"),
    ("duck", "by the pond", "bread"), ("mouse", "in a barn", "cheese"), ("bear", "in a cave", "honey"),
    ("rabbit", "in the garden", "carrots"), ("owl", "in an old tree", "nuts"), ("horse", "by the mill", "apples"),
    ("frog", "by the river", "flies"), ("goat", "on a hill", "grass"), ("hen", "behind the church", "corn"),
)
DEFINITIONS = (
    ("Python", "a high-level programming language"), ("a computer", "a machine that follows a program"),
    ("a cat", "an animal that sleeps a lot"), ("a dog", "an animal that is always happy to see you"),
    ("a duck", "a bird that likes to swim"), ("an owl", "a bird that is awake at night"),
    ("a bear", "a big animal that sleeps all winter"), ("a frog", "a green animal that can jump far"),
    ("rain", "water that falls from the clouds"), ("snow", "rain that is too cold to hurry"),
    ("winter", "the coldest part of the year"), ("summer", "the warmest part of the year"),
    ("the moon", "a ball of rock that travels around the earth"), ("breakfast", "the first meal of the day"),
    ("a lake", "water with land all around it"), ("an island", "land with water all around it"),
    ("a library", "a house full of books"), ("a book", "a box full of words"),
    ("a clock", "a machine that tells the time"), ("a kite", "a toy that flies in the wind"),
    ("an umbrella", "a small roof that you can carry"), ("a friend", "a person who likes you and helps you"),
    ("a question", "a sentence that wants an answer"), ("a story", "a chain of words that leads to an ending"),
)
CAST = (  # the slots of a story and their tables; each has a first choice ("name") and a different second one ("name2")
    ("name", PEOPLE), ("animal home food", ANIMALS), ("thing", THINGS), ("what meaning", DEFINITIONS), ("colour", COLOURS),
    ("number", NUMBERS), ("mood", MOODS), ("spot", SPOTS), ("place", PLACES), ("goal", GOALS),
)

# A blank line ends a plot. [a|b] is one of the two; ~ is a new paragraph and ^ a new line. A line with a dash holds rows, each
# of which fills {0} {1} {2} throughout, so that the end of a story follows from its beginning. "a" becomes "an" before a vowel.
# Definitions may occur in a story; no other text of a pair may.
PLOTS = """
[It was a grey morning|It was a cold evening|It was late], and {name} was on {his} way to {goal}. Suddenly {0}. {name} had left {his} {1}
at home, and soon {he} {2}. [Luckily|Then] {friend} came by and {3}.[ |~]From that day on, {name} never left home without {his} {1}.
- it began to rain / umbrella / was wet from head to foot / held a big umbrella over them both
- it began to snow / coat / was cold from head to foot / put a warm coat around {him}
- the fog came down / lamp / could not see the road / showed {him} the way with a light
- a strong wind blew / hat / had two cold red ears / lent {him} a hat with a bell on it

"Where is my {colour} {thing}?" asked {name}. {He} looked {spot}, but it was not there. {He} looked {spot2}, but it was not there either.
Then {friend} pointed to {0}, who {1}. {name} [laughed|smiled|was not even angry]. {He} took the {thing} back and gave {0} {2} instead.
- the dog / had put it under a tree / a big bone ; the cat / was asleep on top of it / a soft pillow
- the mouse / had carried it to its friends / a piece of cheese ; the goat / was trying to eat it / some fresh grass

{name} wanted to {0}. On Monday {he} {1}. On Tuesday {he} {1} again. "[Try once more|Do not stop now|Tomorrow it will go better]," said
{friend}. So {name} tried again and again. On Sunday {he} {2}[|, and {friend} clapped]. "I can {0}!" {name} called.
- ride a bicycle / fell into the grass / rode all the way to {goal} ; swim / drank half of the lake / swam to the island and back
- bake bread / made a hard black stone / made bread for the whole street ; play the drum / scared the hens / played a song for the hens
- write a story / wrote only one word / wrote a story about a {mood} {animal}

[Once upon a time|Long ago] there was a {mood} {animal}. It lived {home} and had no friends. [One evening|One cold night|One day] a
{animal2} knocked at the door. It was [hungry|tired and hungry], so the {animal} shared its {food}. The next day the {animal2} came back
with [some|a basket of] {food2}.[ |~]From then on they ate together every evening.

[Once upon a time|One winter|Long ago] a {animal} {0}. It called for help[ all night|, again and again|]. A {mood} {animal2} heard it and
{1}. "I will not forget this," said the {animal}. [A year later|The next summer] the {animal2} {0}, too. And who {1}? It was the {animal}.
- fell into a deep hole / pulled it out ; was lost in the fog / showed it the way home
- was stuck in the mud / pulled it out with a rope ; was caught in a net / cut it free

[Late at night|At midnight|In the middle of the night] {name} heard {0}. ["A ghost!" {he} thought. |{He} was afraid. |]{He} took a {colour}
lamp and went to look. But it was only {1}. {name} laughed and {2}. Then {he} went back to bed.
- a noise at the door / the cat, who wanted to come in / let it in ; a song on the roof / an owl that sang to the moon / sang along
- a knock at the window / a tree that danced in the wind / danced with it for a while
- little feet in the kitchen / a mouse that was looking for cheese / left some cheese on the floor

In spring {name} put a seed into the ground. "Nothing will grow there," said {friend}. But {name} gave it water every [day|morning|evening]
and waited. In summer there was {0}.[ |~]In autumn {name} {1}. {friend} came to help, and they {2}.
- a big pumpkin / made a pot of soup / ate it by the fire ; a long row of beans / filled {number} bags with them / sold them all in one day
- an apple tree / found one red apple on it / cut it in half ; a flower as high as the roof / picked it / fed the birds with its seeds

{name} had a {thing}, but {he} wanted a {thing2}. {friend} had a {thing2}, but wanted a {thing}. They met [{place}|on a bridge|in the rain],
[talked for a while|drank some tea] and traded. {name} went home with the {thing2}, and {friend} went home with the {thing}. [Both were sure
that they had won.|Both were happy.]

{name} broke {friend}'s {0}. [It was an accident. |]{He} hid the pieces [under the bed|behind the door|under the table] and said nothing.
But that night {he} could not sleep. In the morning {he} told {friend} the truth. {friend} was [sad|angry] for a moment.[ |~]Then they
mended the {0} together, and {friend} liked it even better than before.
- cup ; clock ; kite ; lamp ; drum ; boat

[One day|One summer] the {0} and the {mood} {1} had a race to {goal}. The {0} was [much |]faster, so it stopped to [sleep under a tree|eat
some berries|look at itself in the water]. The {1} walked on, step by step. When the {0} came to {goal}, the {1} was already there. "You are
fast," said the {1}, "but I did not stop."
- rabbit / duck ; horse / goat ; fox / hen ; dog / frog ; cat / mouse

{name} and {friend} took the [train|bus|first train] to {0}. They {1} and {2}. [It was a long and happy day. |]In the evening {name} came
home with {3}.
- the sea / swam in the waves / built a house of sand / sand in {his} shoes
- the mountains / climbed a high hill / ate bread above the clouds / snow on {his} hat
- the city / walked through a hundred streets / bought nothing / tired feet ; a farm / fed the hens / slept in the grass / eggs in {his} bag

It snowed all night. In the morning {name} and {friend} made a man of snow. They gave him a {colour} hat, and a carrot for a nose. Then the
sun came out. [By noon|In the evening] only the hat and the carrot were left. A {0} ate the carrot, and {name} put on the wet hat.
- rabbit ; horse ; goat ; mouse

{name} read a book about {0}. {He} read it at breakfast and [at dinner|{place}]. That night {he} dreamed that {he} {1}. When {he} woke up,
there was {2} on {his} pillow.[ |~]{name} [never told anyone|told only {friend}|showed it to {friend}].
- the sea / sailed around the world / a white shell ; birds / flew over the town / a white feather
- the moon / danced among the stars / a small grey stone ; trees / was tall and green and full of birds / a green leaf

{name} could not sleep, so {he} counted {0}s. The first {number} {0}s jumped over the {colour} wall. The next {0} did not jump. "I am tired,
too," it said. So it lay down beside {him}, and soon both were asleep.
- goat ; duck ; hen ; frog ; rabbit

{name} wrote a program that counted {0}. It counted to ten, then to a hundred, and it did not stop. {friend} looked at it and
[laughed|smiled]. "You forgot the ending," said {friend}. {name} added one line, and [at last|then] it [stopped|was quiet].
- the stars ; apples ; birds ; the books in the library ; the days of the year

"What is at the end of the world?" asked the {mood} {animal}. It walked [for {number} days|past the mill and over the hill|along the river].
At last it came to a {colour} door. Behind the door was its own home {home}, with some {food} on the table.

{name} began every book at the end. "But then you know the ending," said {friend}. "Yes," said {name}, "but I do not know what led there."
On the last page a {mood} {animal} was eating {food} {home}. On the first page it was [far from home|lost in the fog|still all alone].
"""
CLOSING = "[ The end.| The end.|^The end.|~The end.| And that was that.|]"
DESCRIPTIONS = """
{name} is {0}. {He} {1}. [In the evening|On Sunday|After work] {friend} comes by, and then they {2}.
- a baker / gets up at night, when even the owls are tired / eat warm bread by the window
- a sailor / knows every island and every star / look at old maps ; a painter / paints only {colour} hills / count the colours
- a teacher / asks questions all day and likes the strange answers best / talk about books
- a gardener / talks to the flowers, and the flowers grow / sit under the apple tree
- a programmer / writes Python all day and drinks too much tea / walk along the river

On the way to {goal} {name} asked many questions. "What is {what}?" {he} asked. "{What} is {meaning}," said {friend}. "And what is
{what2}?" asked {name}. "{What2} is {meaning2}." {name} thought about it [for a while|all evening].

{What} is {meaning}. {What2} is {meaning2}. [{name} learned this from {friend}.|{name} read this in a {colour} book.|Ask {name} if you do
not believe it.|Now ask {name} for a better answer!]
"""

CREATURES = [" ".join(words).strip() for words in itertools.product(("", *MOODS), (animal for animal, _, _ in ANIMALS))]
RESTING = ("sleeping", "eating", "drinking water", "playing", "resting", "hiding", "dreaming", "going home", "waiting for dinner")
WORKING = ("reading a book", "drawing a horse", "singing a song", "eating an apple", "drinking tea", "writing a letter", "counting birds")
COUNTED = ("apples", "eggs", "cups", "books", "keys", "bones", "nuts", "carrots", "letters", "cakes")
CONTAINERS = ("in the basket", "in the box", "on the table", "on the shelf", "in the bag", "in the kitchen")
DEEDS = (("buy", "bought"), ("find", "found"), ("see", "saw"), ("lose", "lost"), ("hide", "hid"), ("break", "broke"))
HABITS = [habit.split(" ", 1) for habit in (  # each verb takes an "s" in the third person
    "walk to school", "feed the hens", "water the flowers", "play the drum", "bake bread", "clean the kitchen", "drink tea",
    "write letters", "swim in the lake", "read the newspaper", "sing a song", "count the stars",
)]
TIMES = ("in the morning", "in the evening", "at noon", "after lunch", "before dinner", "on Monday", "on Sunday", "in winter", "in summer")
WAYS = ("by bus", "by train", "by boat", "by bicycle", "on foot", "on a horse")
GREETINGS = ("good morning", "good evening", "good night", "hello", "goodbye", "thank you", "welcome home")
REASONS = (  # present, past, reason
    ("open the umbrella", "opened the umbrella", "it was raining"), ("close the window", "closed the window", "the wind was too loud"),
    ("light the lamp", "lit the lamp", "it was dark"), ("make a fire", "made a fire", "the house was cold"),
    ("bake a cake", "baked a cake", "friends were coming"), ("take the bus", "took the bus", "the bicycle was broken"),
    ("stay at home", "stayed at home", "it was Sunday"), ("run home", "ran home", "a storm was coming"),
    ("go to bed", "went to bed", "it was late"), ("feed the cat", "fed the cat", "it was hungry"),
    ("laugh", "laughed", "the story was funny"), ("cry", "cried", "the story was sad"), ("sing", "sang", "the day was over"),
    ("drink tea", "drank tea", "it was snowing"), ("buy a coat", "bought a coat", "winter was near"),
)
OPPOSITES = [order for words in (
    "hot cold", "big small", "old young", "wet dry", "dark bright", "happy sad", "loud quiet", "fast slow", "early late", "full empty",
    "open closed", "high low", "long short", "near far", "hard soft", "strong weak", "good bad", "first last", "day night",
    "summer winter", "up down", "left right", "black white", "clean dirty", "sweet sour", "true false", "over under", "always never",
    "brave afraid", "question answer", "friend enemy", "everything nothing", "inside outside", "before after", "backwards forwards",
) for order in itertools.permutations(words.split())]
SIZES = ("fly", "mouse", "hen", "cat", "fox", "goat", "bear", "horse", "bus", "house", "hill", "moon")  # from small to large
LARGER = [(big, small) for small, big in itertools.combinations(SIZES, 2)]
GROUPS = (
    ("apple", "pear", "plum", "cherry", "lemon"), ("cat", "dog", "fox", "horse", "goat"), ("hammer", "spade", "axe", "rake", "broom"),
    ("coat", "hat", "sock", "glove", "shoe"), ("table", "chair", "bed", "shelf", "bench"),
)

# Kind, response, instruction, and the fillings of {0} {1} {2}. An instruction may say nothing that its response leaves out.
KINDS: tuple[tuple[str, str, str, tuple[Sequence[str | Sequence[str]], ...]], ...] = (
    ("definition", "{0[0]} is {0[1]}.", "Define what {0[0]} is.", (DEFINITIONS,)),
    ("definition", "{0[0]} is {0[1]}, says {1}.", "Define what {0[0]} is.", (DEFINITIONS, PEOPLE)),  # without these, too few
    ("doing", "The {0} is {1}.", "What is the {0} doing?", (CREATURES, RESTING)),
    ("doing", "{0} is {1} {2}.", "What is {0} doing {2}?", (PEOPLE, WORKING, PLACES)),
    ("where", "The {0} {1} is {2}.", "Where is the {0} {1}?", (COLOURS, THINGS, SPOTS)),
    ("who", "{0} {1} the {2} to {3}.", "Who {1} the {2} to {3}?", (PEOPLE, ("gave", "showed", "sold", "brought"), THINGS, PEOPLE)),
    ("what", "{0} {1[1]} a {2} {3} {4}.", "What did {0} {1[0]} {4}?", (PEOPLE, DEEDS, COLOURS, THINGS, PLACES)),
    ("colour", "{0}'s {1} is {2}.", "What colour is {0}'s {1}?", (PEOPLE, THINGS, COLOURS)),
    ("colour", "{0}'s {1} are {2}.", "What colour are {0}'s {1}?", (PEOPLE, ("shoes", "socks", "gloves"), COLOURS)),
    ("size", "The {0[0]} is bigger than the {0[1]}.", "Which is bigger, the {0[0]} or the {0[1]}?", (LARGER,)),
    ("size", "The {0[1]} is smaller than the {0[0]}.", "Which is smaller, the {0[1]} or the {0[0]}?", (LARGER,)),
    ("count", "There are {0} {1} {2}.", "How many {1} are {2}?", (NUMBERS, COUNTED, CONTAINERS)),
    ("opposite", "The opposite of {0[0]} is {0[1]}.", "What is the opposite of {0[0]}?", (OPPOSITES,)),
    ("why", "{0} {1[1]} because {1[2]}.", "Why did {0} {1[0]}?", (PEOPLE, REASONS)),
    ("when", "{0} {1[0]}s {1[1]} {2}.", "When does {0} {1[0]} {1[1]}?", (PEOPLE, HABITS, TIMES)),
    ("how", "{0} got to {1} {2}.", "How did {0} get to {1}?", (PEOPLE, GOALS, WAYS)),
    ("greeting", "{0}, {1}!", "Say {0} to {1}.", (GREETINGS, PEOPLE)),
)


def stories(count: int, seed: int = 0) -> Iterator[str]:
    """Generate this many stories. With the same seed, a longer run begins with the shorter one."""
    source = random.Random(seed)
    plots = [*_read_plots(PLOTS, CLOSING), *_read_plots(DESCRIPTIONS, "")]
    for _ in range(count):
        template, rows = _choose(plots, source)
        slots = _cast(source)
        text = template.format(*_choose(rows, source), **slots).format(**slots)  # twice, because rows contain slots too
        while "[" in text:  # the innermost first
            text = re.sub(r"\[([^\[\]]*)\]", lambda match: _choose(match[1].split("|"), source), text)
        yield re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text).replace("^", "\n").replace("~", "\n\n")


def pairs(seed: int = 0) -> tuple[list[ToyPair], list[ToyPair]]:
    """The training pairs and the held-out pairs. The seed chooses the combinations, but does not affect which of them are held out."""
    source = random.Random(seed)
    chosen: list[ToyPair] = []
    for kind in kinds().values():
        chosen += sorted(_shuffle(kind, source), key=lambda pair: pair not in PUBLISHED)[:PAIRS_PER_KIND]
    chosen = _shuffle(chosen, source)
    return [pair for pair in chosen if not is_held_out(pair)], [pair for pair in chosen if is_held_out(pair)]


def is_held_out(pair: ToyPair) -> bool:
    """Whether a hash of its instruction holds a pair out: about one in ten. Definitions never are, because they occur in stories."""
    digest = hashlib.sha256(f"{pair.instruction} {pair.input}".encode()).digest()
    return digest[0] % 10 == 0 and not pair.instruction.startswith("Define")


def kinds() -> dict[str, list[ToyPair]]:
    """Every possible pair, by kind."""
    found: dict[str, list[ToyPair]] = {kind: [] for kind, *_ in KINDS}
    for kind, response, instruction, fillings in KINDS:
        for words in itertools.product(*fillings):
            if words[0] != words[-1] or len(words) == 1:  # nobody gives a thing to themselves
                found[kind].append(ToyPair(instruction.format(*words), "", _capital(response.format(*words))))
    found["odd one out"] = [
        ToyPair("Identify the odd one out.", ", ".join(listed), "The {} is the odd one out among {}, {} and {}.".format(odd, *listed))
        for group, others in itertools.permutations(GROUPS, 2)
        for (one, other), odd in itertools.product(itertools.permutations(group, 2), others)
        for listed in ((odd, one, other), (one, odd, other), (one, other, odd))
    ]
    return found


def write_world(folder: Path, story_count: int, seed: int = 0) -> None:
    """Write stories.jsonl, pairs_train.jsonl and pairs_held_out.jsonl into a folder, each complete or not at all."""
    train, held_out = pairs(seed)
    folder.mkdir(parents=True, exist_ok=True)
    _write_lines(folder / "stories.jsonl", ({"text": story} for story in stories(story_count, seed)))
    _write_lines(folder / "pairs_train.jsonl", (pair._asdict() for pair in train))
    _write_lines(folder / "pairs_held_out.jsonl", (pair._asdict() for pair in held_out))


def _write_lines(path: Path, rows: Iterable[dict[str, str]]) -> None:
    with atomic_write(path) as file:
        file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows)


def _read_plots(text: str, closing: str) -> Iterator[tuple[str, list[list[str]]]]:
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        rows = [row.split(" / ") for line in lines if line.startswith("- ") for row in line[2:].split(" ; ")]
        yield " ".join(line for line in lines if not line.startswith("- ")) + closing, rows or [[]]


def _cast(source: random.Random) -> dict[str, str]:
    slots: dict[str, str] = {}
    for keys, table in CAST:
        for number, entry in zip(("", "2"), _shuffle(table, source), strict=False):
            words = (entry,) if isinstance(entry, str) else entry
            slots.update({key + number: word for key, word in zip(keys.split(), words, strict=True)})
    he, his, him = ("she", "her", "her") if slots["name"] in WOMEN else ("he", "his", "him")
    capitals = {"He": _capital(he), "What": _capital(slots["what"]), "What2": _capital(slots["what2"])}
    return {**slots, **capitals, "friend": slots["name2"], "he": he, "his": his, "him": him}


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


# Only random() is promised to give the same numbers in every version of Python; the other methods of Random are not.
def _choose(items: Sequence[Item], source: random.Random) -> Item:
    return items[int(source.random() * len(items))]


def _shuffle(items: Iterable[Item], source: random.Random) -> list[Item]:
    return sorted(items, key=lambda _: source.random())
