"""Small talk and captions about a picture whose contents are known."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from qwen3vl.tasks.asking import words as joined
from qwen3vl.train.synthetic.answers import reading_order
from qwen3vl.train.synthetic.arrange import Scene, Thing
from qwen3vl.train.synthetic.icons import article, plural
from qwen3vl.train.synthetic.referring import RELATIONS, alone
from qwen3vl.train.synthetic.sample import FreeTruth, Mark, Side, SyntheticSample, Task
from qwen3vl.train.synthetic.scene_questions import zone_of
from qwen3vl.train.synthetic.scenes import draw_scene
from qwen3vl.train.synthetic.sentences import NUMBERS
from qwen3vl.types import ImagePart, Message, TextPart

CAPTIONS = ("Describe this image.", "Describe the picture.", "What do you see?", "What is in this picture?",
            "Describe the image in one sentence.", "Write a caption for this picture.")  # fmt: skip
GREETINGS = ("Hello!", "Hi there.", "Hey, can you see this?", "Good morning! Look at this.", "Hello, I have a picture.")
THANKS = ("Thanks!", "Thank you.", "Great, thank you!", "OK, thanks.", "Nice, that helps.")
WELCOME = "You are welcome!"
NAMES = ("What is it?", "What is this?", "What can you see here?", "Can you tell me what this is?")


def said_of(things: Sequence[Thing]) -> str:
    """ "A red star and two blue circles": alike things together, in the order of first sight from the top left."""
    counts = Counter(t.words for t in reading_order(things, lambda t: t.box))
    listed = []
    for words, count in counts.items():
        colour, _, name = words.partition(" ")
        many = NUMBERS[count] if count < len(NUMBERS) else str(count)
        listed.append(article(words) if count == 1 else f"{many} {colour} {plural(name)}")
    text = joined(listed)
    return text[:1].upper() + text[1:]


def caption(rng: random.Random, side: Side) -> SyntheticSample:
    """All things, and for two of them how they lie."""
    scene = draw_scene(rng, side, most=6)
    said = f"{said_of(scene.things)}."
    if rng.random() < 0.4 and (more := _relation(rng, scene)):
        said = f"{said} {more}"
    return _sample("caption", (_user(rng.choice(CAPTIONS), scene),), said, scene)


def _relation(rng: random.Random, scene: Scene) -> str:
    """ "The red star is above the blue circle."; "" where nothing clear can be said."""
    singles = [t for t in scene.things if alone(scene.things, t.words)]
    for a in singles:
        for b in singles:
            for relation in rng.sample(RELATIONS, len(RELATIONS)):
                if a is not b and relation.fits(a, b, scene.picture.size):
                    return f"The {a.words} is {relation.words} the {b.words}."
    return ""


def talk(rng: random.Random, side: Side) -> SyntheticSample:
    """Two or three turns: a greeting or a question first, then one that leans on what was said."""
    scene = draw_scene(rng, side, most=3)
    turns = [_opening(rng, scene)]
    for number in range(1, rng.randint(2, 3)):
        following = _following(rng, scene, number)
        if following not in turns:
            turns.append(following)
    messages: list[Message] = []
    for number, (question, answer) in enumerate(turns):
        messages.append(_user(question, scene if number == 0 else None))
        messages.append(Message("assistant", (TextPart(answer),)))
    return _sample("talk", tuple(messages[:-1]), turns[-1][1], scene)


def _opening(rng: random.Random, scene: Scene) -> tuple[str, str]:
    said = said_of(scene.things)
    if rng.random() < 0.4:
        return rng.choice(GREETINGS), f"Hello! I see {said[:1].lower()}{said[1:]}. What would you like to know?"
    return rng.choice(NAMES), f"{said}."


def _following(rng: random.Random, scene: Scene, number: int) -> tuple[str, str]:
    forms = [_colour_of, _number_of, _place_of, _thanks] if number > 1 else [_colour_of, _number_of, _place_of]
    while True:
        made = rng.choice(forms)(rng, scene)
        if made is not None:
            return made


def _colour_of(rng: random.Random, scene: Scene) -> tuple[str, str] | None:
    thing = rng.choice(scene.things)
    if alone(scene.things, thing.name) is None:
        return None
    question = "And what color is it?" if len(scene.things) == 1 else f"What color is the {thing.name}?"
    return question, f"The {thing.name} is {thing.colour}."


def _number_of(rng: random.Random, scene: Scene) -> tuple[str, str]:
    thing = rng.choice(scene.things)
    count = sum(t.name == thing.name for t in scene.things)
    words = thing.name if count == 1 else plural(thing.name)
    return (
        f"How many {plural(thing.name)} are there?",
        f"There {'is' if count == 1 else 'are'} {NUMBERS[count]} {words}.",
    )


def _place_of(rng: random.Random, scene: Scene) -> tuple[str, str] | None:
    thing = rng.choice(scene.things)
    zone = zone_of(thing, scene.picture.size)
    if zone is None or alone(scene.things, thing.words) is None:
        return None
    where = "in the center" if zone == "center" else f"at the {zone}"
    return f"Where is the {thing.words}?", f"It is {where} of the picture."


def _thanks(rng: random.Random, scene: Scene) -> tuple[str, str]:
    return rng.choice(THANKS), WELCOME


def _user(text: str, scene: Scene | None) -> Message:
    picture = (ImagePart(scene.picture),) if scene else ()
    return Message("user", (*picture, TextPart(text)))


def _sample(task: str, messages: tuple[Message, ...], answer: str, scene: Scene) -> SyntheticSample:
    marks = tuple(Mark(t.box, t.words) for t in scene.things)
    return SyntheticSample(task, messages, answer, FreeTruth(answer), marks)


TASKS: dict[str, Task] = {"caption": caption, "talk": talk}
