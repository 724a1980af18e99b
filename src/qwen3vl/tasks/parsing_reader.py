"""The cursor that reads JSON with slips of the pen; see parsing_json.py for how doubtful cases are decided."""

from __future__ import annotations

import json
import re
from typing import Any

from qwen3vl.tasks.parsing_strings import KEY_AHEAD, LATEX_HAZARD, QUOTED_KEY_AHEAD, QUOTES, Role, read_string

MAX_DEPTH = 60  # deeper brackets are a loop, not an answer
_SPACE = re.compile(r"(?:\s+|//[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WORD = re.compile(r"[^\s,，{}\[\]()\"“”][^,，{}\[\]()\n\"“”]*")
_KEY_WORD = re.compile(r"[^\s,，:：={}\[\]()\"'“”][^,，:：={}\[\]()\n\"“”]*")
_LITERALS = {"true": True, "false": False, "null": None, "none": None, "nan": None, "undefined": None}
_NUMBERS_IN_BRACES = re.compile(r"\{\s*-?\d[\d.]*(?:\s*,\s*-?\d[\d.]*)+\s*\}")
_UNCLOSED_KEY = re.compile(r"[\"'“]([A-Za-z_]\w*)(?=\s*:\s*[\[{\d\"'-])")
_SCRAWL = re.compile(r"[^\"'“”A-Za-z]*")  # from a place's key to the next key or text
_SCRAWL_END = re.compile(r"(?:[\s{\[(:;,]*[\])]+)?")
_AFTER_PLACE = re.compile(rf"(?:\s*[,，;])?{KEY_AHEAD.pattern}|\s*[}}\])]|\s*[,，;]\s*[}}{{\]]")
_SOUND_PLACE = re.compile(r"\s*[\[(]\s*(?:[-+\d.eE]+\s*,\s*)*[-+\d.eE]+\s*[\])]")
_PLACE_KEY = re.compile(r"box|point|coord|quad|poly", re.IGNORECASE)
_STRAY = re.compile(r"[\"'“”]\s*\d*\s*[\],]")
_SEPARATORS = tuple(",，;")
_CLOSING = tuple("])")


class Object(dict[str, Any]):
    """A JSON object that remembers every pair it was written with: `pairs`, in order, with keys that
    appear twice. As a dict the last one counts, as everywhere in JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[str, Any]] = []

    def add(self, key: str, value: Any) -> None:
        self.pairs.append((key, value))
        self[key] = value


def shorten(text: str, limit: int = 100) -> str:
    """The text in quotes for an error message, on one line."""
    text = " ".join(text.split())
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def has_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(has_object(v) for v in value))


class Reader:
    """A cursor over the text. Each method leaves `at` behind what it read; `cut` says that the end came first."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.notes: list[str] = []
        self.cut = False

    def top_values(self) -> list[Any]:
        """Every value of the text; brackets in prose ("[sic]") count only when nothing better is there."""
        values: list[Any] = []
        lost = re.match(rf"[^{{\[]*?(?:\A|\n|,)(?={QUOTED_KEY_AHEAD.pattern})", self.text)
        if lost:
            self.at = lost.end() - 1
            self.notes.append("an object without its opening brace")
            values += self.objects(1)
        while self.seek():
            before = self.at
            values += self.item(0, "item")
            self.at = max(self.at, before + 1)
        objects = [v for v in values if has_object(v)]
        if objects and len(objects) < len(values):
            self.note(f"brackets without objects were passed over ({len(values) - len(objects)})")
        return objects or values

    def flawless(self, values: list[Any]) -> bool:
        """True if plain JSON without doubtful places stands here; it is then read exactly."""
        try:
            value, end = _DECODER.raw_decode(self.text, self.at)
        except (ValueError, RecursionError):
            return False
        if LATEX_HAZARD.search(self.text, self.at, end):
            return False
        values.append(value)
        self.at = end
        return True

    def note(self, what: str) -> None:
        if what not in self.notes:
            self.notes.append(what)

    def peek(self) -> str:
        """The next character that is no space, at which the cursor then stands; "" at the end."""
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
        return self.text[self.at : self.at + 1]

    def seek(self) -> bool:
        """Moves to the next bracket that can open a value."""
        found = _OPENING.search(self.text, self.at)
        self.at = found.start() if found else len(self.text)
        return found is not None

    def item(self, depth: int, role: Role) -> list[Any]:
        """One value, or the several objects that it turned out to be; none if nothing can be made of it."""
        start = self.peek()
        if start in ("{", "[", "(") and depth >= MAX_DEPTH:
            self.note(f"brackets more than {MAX_DEPTH} deep were ignored")
            self.at += 1
            return []
        sound: list[Any] = []
        if start in ("{", "[") and self.flawless(sound):
            return sound
        if start == "{" and (braced := _NUMBERS_IN_BRACES.match(self.text, self.at)):
            self.note("numbers in braces were read as a list")
            self.at = braced.end()
            return [[_number(n) for n in _NUMBER.findall(braced[0])]]
        if start == "{":
            return self.objects(depth + 1)
        if start in ("[", "("):
            return [self.array(depth + 1, role)]
        if start and start in QUOTES:
            return [self.string(role)]
        return self.scalar(role)

    # ---------------------------------------------------------------------------------- objects

    def objects(self, depth: int) -> list[Any]:
        """From '{': one object, or more where a key that it already has opens the next one."""
        self.at += 1
        done = [Object()]
        while (char := self.peek()) != "}":
            if char == "":
                self.cut = True
                return [o for o in done if o]
            if char in _SEPARATORS:
                self.at += 1
            elif char in _CLOSING:
                if not self.wrong_bracket():
                    return [o for o in done if o]
            elif char == "{":
                if not self.brace_again(depth, done):
                    return [o for o in done if o]
            else:
                self.pair(depth, done)
        self.at += 1
        return [o for o in done if o] or done[:1]

    def wrong_bracket(self) -> bool:
        """At ']' inside an object. True if it was one too many and the object goes on."""
        rest = self.text[self.at + 1 : self.at + 200]
        if KEY_AHEAD.match(re.sub(r"^\s*[,，]", "", rest)):
            self.note("a closing bracket too many was ignored")
            self.at += 1
            return True
        self.note("an object was not closed")
        if re.match(r"\s*[,，]\s*\{", rest):
            self.at += 1  # ']' was written for '}': more objects follow
        return False

    def brace_again(self, depth: int, done: list[Object]) -> bool:
        """At '{' where a key should stand. True if the object goes on behind what the brace holds."""
        if depth >= MAX_DEPTH:
            self.at += 1
            return True
        fresh = not done[-1]
        inner = self.objects(depth + 1)
        if fresh:
            self.note("an object was opened twice: one brace was ignored")
            done[-1:] = inner or [Object()]
            if self.peek() == "}":
                return True
            return bool(KEY_AHEAD.match(re.sub(r"^[,，]", "", self.text[self.at : self.at + 200])))
        if inner and any(key in done[-1] for key in inner[0]):
            self.note("an object was not closed before the next one")
            done += inner
            return True
        self.note("a brace inside an object was ignored")
        for other in inner:
            for key, value in other.pairs:
                done[-1].add(key, value)
        return True

    def pair(self, depth: int, done: list[Object]) -> None:
        key = self.key()
        if key is None:
            return
        if done[-1] and key == done[-1].pairs[0][0]:
            self.note("an object was not closed before the next one")
            done.append(Object())
        elif key in done[-1]:
            self.note(f"the key {key!r} stands twice in an object")
        char = self.peek()
        if char == "":
            self.cut = True
            self.note(f"the answer ends before the value of {key!r}")
            return
        if char in (*_SEPARATORS, *_CLOSING, "}"):
            self.note(f"{key!r} has no value")
            done[-1].add(key, None)
            return
        before = self.at
        values: list[Any] = self.scrawled(key) if _PLACE_KEY.search(key) else []
        values = values or self.item(depth, "value")
        if values:
            done[-1].add(key, values[0] if len(values) == 1 else values)
        self.at = max(self.at, before + 1)

    def scrawled(self, key: str) -> list[Any]:
        """A place whose brackets or commas are damaged, but whose numbers are as many as there have to be:
        [462, 484, 597:, 645] or 5, 6, 7, 8]. Sound lists, and what the answer ends in, are left to `item`."""
        span = _SCRAWL.match(self.text, self.at)
        wanted = 9 if "3d" in key.lower() else 4 if "box" in key.lower() else 2 if "point_2d" in key.lower() else 0
        if (
            not wanted
            or span is None
            or span[0].lstrip().startswith(("[[", "[(", "(("))
            or span.end() >= len(self.text)
        ):
            return []
        numbers = list(_NUMBER.finditer(span[0]))
        if len(numbers) != wanted:
            return []
        start, end = self.at, self.at + numbers[-1].end()
        end += len(_SCRAWL_END.match(self.text, end)[0])  # type: ignore[index]
        if not _AFTER_PLACE.match(self.text, end):
            return []  # a quote among the digits: which numbers were meant is in doubt
        self.at = end
        if not _SOUND_PLACE.fullmatch(self.text, start, self.at):
            self.note("the brackets or commas of a place were damaged: its numbers were read")
        return [[_number(n[0]) for n in numbers]]

    def key(self) -> str | None:
        """A key and its colon; None if what stands here is none, which is then passed over."""
        char = self.peek()
        if unclosed := _UNCLOSED_KEY.match(self.text, self.at):
            self.note("the quote behind a key is missing")
            key = unclosed[1]
            self.at = unclosed.end()
        elif char in QUOTES:
            key = self.string("key")
        else:
            word = _KEY_WORD.match(self.text, self.at)
            if word is None or word[0].startswith(("...", "…")):
                self.note("stray characters were dropped")
                self.at = word.end() if word else self.at + 1
                return None
            key = word[0].strip()
            self.at = word.end()
            if re.compile(r"[\"'”]\s*[:：]").match(self.text, self.at):
                self.at += 1  # the quote that was not opened
        if self.cut and self.at >= len(self.text):
            return None
        if QUOTED_KEY_AHEAD.match(self.text, self.at) and self.peek() in QUOTES:
            self.note("stray characters were dropped")
            return None
        if self.peek() in (":", "：", "="):
            while self.peek() in (":", "：", "="):
                self.at += 1
        elif self.peek() in ("[", "{", *QUOTES):
            self.note(f"a colon is missing behind {key!r}")
        return key

    # ------------------------------------------------------------------- lists, strings, numbers

    def array(self, depth: int, role: Role) -> list[Any]:
        self.at += 1
        items: list[Any] = []
        comma = False
        while (char := self.peek()) not in _CLOSING:
            if char == "":
                self.cut = True
                return items
            before = self.at
            if char in _SEPARATORS or char in (":", "："):
                comma = True
                self.at += 1
            elif char == "}":
                if self.brace_ends_list(items, role):
                    return items
            elif (
                items
                and char in QUOTES
                and all(isinstance(i, (int, float)) for i in items)
                and _STRAY.match(self.text, self.at)
            ):
                self.note("a stray quote among numbers was ignored")
                self.at += 1
            elif self.key_here(char):
                objects_before = bool(items) and all(isinstance(i, dict) for i in items)
                if role == "value" and not objects_before and (items or comma):
                    self.note("a list was not closed")
                    return items
                self.note("an object without its opening brace")
                self.at -= 1
                items += self.objects(depth)
            else:
                items += self.item(depth, "item")
            self.at = max(self.at, before + 1)
        self.at += 1
        return items

    def key_here(self, char: str) -> bool:
        pattern = QUOTED_KEY_AHEAD if char in QUOTES else KEY_AHEAD
        return bool(pattern.match(self.text, self.at))

    def brace_ends_list(self, items: list[Any], role: Role) -> bool:
        """At '}' inside a list. True if the list ends here (and, when '}' stood for ']', behind it)."""
        rest = self.text[self.at + 1 : self.at + 200]
        scalars = bool(items) and not any(has_object(i) for i in items)
        if role == "value" and KEY_AHEAD.match(re.sub(r"^\s*[,，]", "", rest)):
            self.note("a list was closed with a brace")
            self.at += 1
            return True
        if role == "value" and (scalars or not re.match(r"\s*[,，]\s*\{", rest)):
            self.note("a list was not closed")
            return True
        self.note("a closing brace too many was ignored")
        self.at += 1
        return False

    def string(self, role: Role) -> str:
        read = read_string(self.text, self.at, role)
        self.at = read.end
        if read.note:
            self.note(read.note)
        if read.cut:
            self.cut = True
            if role != "key":
                self.note(f"the answer ends inside the text {shorten(read.value, 40)}")
        return read.value

    def scalar(self, role: Role) -> list[Any]:
        """A number, true, false, null, or a word without quotes."""
        number = _NUMBER.match(self.text, self.at)
        follows = r"\s*(?:[,，;}\])\n]|/[/*]|\Z)" if role == "value" else r"[\s,，;}\])\"']|/[/*]|\Z"
        if number and re.compile(follows).match(self.text, number.end()):
            self.at = number.end()
            if self.at >= len(self.text):
                self.cut = True
                self.note(f"the answer ends at the number {number[0]}: dropped, its last digits may be missing")
                return []
            return [_number(number[0])]
        word = _WORD.match(self.text, self.at)
        if word is None:
            self.at += 1
            self.note("stray characters were dropped")
            return []
        self.at = word.end()
        text = word[0].strip()
        if self.text[self.at : self.at + 1] in ('"', "”") and re.match(r".\s*[,}\]]", self.text[self.at :][:9]):
            self.at += 1  # the quote that was not opened
        if text.lower() in _LITERALS:
            return [_LITERALS[text.lower()]]
        if self.at >= len(self.text):
            self.cut = True
        if text.startswith(("...", "…")):
            self.note("an ellipsis stands for entries that the model left out")
            return []
        self.note(f"text without quotes: {shorten(text, 40)}")
        return [text]


_OPENING = re.compile(r"[{\[]")


def _object(pairs: list[tuple[str, Any]]) -> Object:
    made = Object()
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {key!r} stands twice")
        made.add(key, value)
    return made


def _number(text: str) -> int | float:
    if re.fullmatch(r"[-+]?\d{1,18}", text):
        return int(text)
    return float(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_number, parse_constant=lambda _: None, strict=False)
