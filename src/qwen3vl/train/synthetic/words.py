"""Texts to set: dictionary words, words that no dictionary has, numbers, prices, dates, codes, names.

Words belong to a side by their hash, invented ones and names too. A model that guesses from a dictionary
shall fail, so a good part of every text is invented or is a number.
"""

from __future__ import annotations

import random
import re
import string
from functools import lru_cache
from pathlib import Path

from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.sides import side_of

DICTIONARIES = ("american-english", "ngerman", "french", "spanish", "italian")
_FOLDER = Path("/usr/share/dict")


def _list(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_SMALL = _list("""about above account address after again almost along already amount animal answer apple around article
autumn balance basket before behind between black bottle bread bridge bright brother bubble butter button cabin camera
candle carbon castle center chair change cheese circle client cloud coffee color common copper corner cotton country
credit custom daily danger delivery desert dinner direct doctor double dragon early earth east editor effect engine
entrance evening except family farmer field figure filter finger flower forest fortune friend garden glass golden
grand green ground group guest hammer handle harbor heavy history honey hotel hour house hundred island item jacket
january journey kettle kitchen ladder language large leader leather letter light listen little lobby lunch machine
magic manager market master matter member metal middle minute mirror modern moment money monitor morning mother
motion mountain museum music nature needle network night north number object ocean office onion open orange order
other outer owner oxygen paper parcel parking past people pepper picture planet plastic player pocket point police
potato power present price printer private product profile project purple quality quarter question quick quiet rabbit
railway reader record region remote report result return river rocket salad sample school season second secret
section service shadow silver simple single sister small soft south special spring square station storm street
student sugar summer sunday supply surface switch system table target team tender theater thing thunder ticket tiger
title today tomato total tower traffic travel triangle turtle under union update upper useful valley value velvet
vendor village violet visitor voice volume waiter walnut water weather wednesday weekly west white window winter
wonder wooden worker world yellow yesterday zebra zero""")
_ONSETS = _list("""b bl br c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s
sc sh sk sl sm sn sp st str sw t th tr tw v w wh y z""")
_VOWELS = _list("a e i o u a e i o u ai au ea ee ie oa oo ou y")
_CODAS = ("", "", "", *_list("b ck d f g k l ll lt m mp n nd ng nk nt p r rd rk rm rn rt s sh sk ss st t th x z"))
_RUDE = re.compile(
    r"fuck|shit|cunt|nigg|fag|cock|whor|bitch|slut|rape|twat|nazi|kike|dyke|spic|wank|piss|clit|porn|skinhead|penis|vagin",
    re.IGNORECASE,
)
CURRENCIES = ("$", "€", "£", "¥", "USD ", "EUR ", "CHF ", "kr ", "RM", "Rs ")
MONTHS = _list("January February March April May June July August September October November December")
_PUNCTUATION = (",", ".", ":", ";", "!", "?")


@lru_cache(maxsize=8)
def dictionary(language: str) -> tuple[str, ...]:
    """The whole list; a few hundred English words where it is not installed."""
    path = _FOLDER / language
    if not path.is_file():
        return tuple(_SMALL) if language == DICTIONARIES[0] else ()
    return tuple(path.read_text(encoding="utf-8").split())


def word(rng: random.Random, side: Side, language: str = DICTIONARIES[0]) -> str:
    """A dictionary word of a side."""
    words = dictionary(language) or dictionary(DICTIONARIES[0])
    while True:
        found = words[int(rng.random() * len(words))]
        if not (found.isalpha() and 2 <= len(found) <= 14):
            continue
        if side_of("word", found.lower()) == side and not _RUDE.search(found):
            return found


def invented(rng: random.Random, side: Side) -> str:
    """A word that can be said but means nothing."""
    while True:
        made = "".join(
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2, 3)))
        )
        if len(made) <= 12 and side_of("word", made) == side:
            return made


def code(rng: random.Random, side: Side) -> str:
    """Letters and digits in no order: only reading helps."""
    alphabet = rng.choice((string.ascii_uppercase + string.digits, string.ascii_letters + string.digits))
    while True:
        made = "".join(rng.choice(alphabet) for _ in range(rng.randint(2, 8)))
        if rng.random() < 0.25 and len(made) >= 4:
            cut = rng.randint(1, len(made) - 1)
            made = made[:cut] + rng.choice("-/_") + made[cut:]
        if side_of("word", made) == side:
            return made


def cased(rng: random.Random, text: str) -> str:
    """In small letters (mostly), Capitalised, in CAPITALS or, seldom, mIxEd."""
    style = rng.random()
    if style < 0.55:
        return text
    if style < 0.8:
        return text[:1].upper() + text[1:]
    if style < 0.96:
        return text.upper() if "ß" not in text else text
    return "".join(c.upper() if rng.random() < 0.5 and c != "ß" else c for c in text)


# ----------------------------------------------------------------------------------------- numbers


def number(rng: random.Random) -> str:
    digits = rng.choice((1, 2, 2, 3, 3, 4, 5, 6))
    value = rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
    style = rng.random()
    if style < 0.5:
        return str(value)
    if style < 0.65:
        return f"{value:,}"
    if style < 0.85:
        return f"{value / 10 ** rng.randint(1, min(3, digits)):.{rng.randint(1, 3)}f}"
    return f"{rng.choice(('-', '+', ''))}{value % 1000}{rng.choice(('%', '%', ' %', 'kg', ' km', 'cm', 'x'))}"


def price(rng: random.Random) -> str:
    value = rng.choice((rng.randrange(10, 2000), rng.randrange(100, 20000), rng.randrange(1000, 500000))) / 100
    currency = rng.choice(CURRENCIES)
    written = f"{value:,.2f}" if rng.random() < 0.4 else f"{value:.2f}"
    if rng.random() < 0.25:
        return f"{written.replace(',', ' ').replace('.', ',')} {currency.strip()}"
    return currency + written if rng.random() < 0.8 else f"{written} {currency.strip()}"


def date(rng: random.Random) -> str:
    year, month, day = rng.randint(1970, 2039), rng.randint(1, 12), rng.randint(1, 28)
    name = MONTHS[month - 1]
    return rng.choice((
        f"{year}-{month:02}-{day:02}", f"{day:02}.{month:02}.{year}", f"{month:02}/{day:02}/{year}",
        f"{day:02}/{month:02}/{year % 100:02}", f"{day} {name} {year}", f"{day} {name[:3]} {year}",
        f"{name[:3]} {day}, {year}", f"{name} {day}, {year}", f"{day}.{month}.{year % 100:02}",
    ))  # fmt: skip


def time_of_day(rng: random.Random) -> str:
    hour, minute = rng.randrange(24), rng.randrange(60)
    style = rng.random()
    if style < 0.5:
        return f"{hour:02}:{minute:02}"
    if style < 0.75:
        return f"{hour:02}:{minute:02}:{rng.randrange(60):02}"
    return f"{(hour - 1) % 12 + 1}:{minute:02} {'AM' if hour < 12 else 'PM'}"


def phone(rng: random.Random) -> str:
    d = [str(rng.randrange(10)) for _ in range(10)]
    j = "".join
    return rng.choice((
        f"({j(d[:3])}) {j(d[3:6])}-{j(d[6:])}", f"+{rng.randint(1, 98)} {j(d[:3])} {j(d[3:7])}",
        f"{j(d[:3])}-{j(d[3:7])}", f"0{j(d[:4])} {j(d[4:])}", f"{j(d[:2])} {j(d[2:4])} {j(d[4:6])} {j(d[6:8])}",
    ))  # fmt: skip


def address_online(rng: random.Random, side: Side) -> str:
    name, host = invented(rng, side), invented(rng, side)
    end = rng.choice(("com", "org", "net", "io", "de", "fr", "co.uk"))
    return rng.choice((f"{name}@{host}.{end}", f"www.{host}.{end}", f"https://{host}.{end}/{name}", f"@{name}_{host}"))


# ----------------------------------------------------------------------------------- names and lines


def surname(rng: random.Random, side: Side) -> str:
    return invented(rng, side).capitalize()


def person(rng: random.Random, side: Side) -> str:
    """First and last name, invented: no list of names to learn by heart."""
    return f"{surname(rng, side)} {surname(rng, side)}"


def place(rng: random.Random, side: Side) -> str:
    end = rng.choice(("ton", "ville", "burg", "field", "ford", "stad", "", ""))
    return (invented(rng, side) + end).capitalize()


def token(rng: random.Random, side: Side) -> str:
    """One piece of text without spaces in most cases: what lines are made of."""
    kind = rng.random()
    if kind < 0.34:
        return cased(rng, word(rng, side))
    if kind < 0.44:
        return cased(rng, word(rng, side, rng.choice(DICTIONARIES[1:])))
    if kind < 0.62:
        return cased(rng, invented(rng, side))
    if kind < 0.74:
        return number(rng)
    if kind < 0.80:
        return price(rng)
    if kind < 0.84:
        return rng.choice((date, date, time_of_day, phone))(rng)
    if kind < 0.94:
        return code(rng, side)
    if kind < 0.96:
        return address_online(rng, side)
    inner = cased(rng, word(rng, side))
    return rng.choice(
        (f"({inner})", f'"{inner}"', f"{inner}'s", f"#{inner}", f"{inner}*", f"& {inner}", f"[{number(rng)}]")
    )


def line(rng: random.Random, side: Side, most: int) -> str:
    """A line of at most `most` characters, of at least one piece."""
    pieces: list[str] = []
    room = rng.randint(max(1, most // 4), most)
    for _ in range(40):
        piece = token(rng, side)
        if rng.random() < 0.12:
            piece += rng.choice(_PUNCTUATION)
        if len(" ".join([*pieces, piece])) <= room:
            pieces.append(piece)
        elif pieces:
            break
    return " ".join(pieces) or "".join(rng.choice(string.ascii_letters + string.digits) for _ in range(min(room, 4)))


def sentence(rng: random.Random, side: Side, words: int) -> str:
    """Words as in running text: a capital first, a stop at the end, some commas and numbers."""
    made = []
    for at in range(words):
        piece = (
            word(rng, side).lower()
            if rng.random() < 0.8
            else invented(rng, side)
            if rng.random() < 0.6
            else number(rng)
        )
        made.append(piece + ("," if rng.random() < 0.08 and at < words - 1 else ""))
    text = " ".join(made)
    return text[:1].upper() + text[1:] + rng.choice((".", ".", ".", "!", "?"))


def title(rng: random.Random, side: Side, most: int = 3) -> str:
    made = " ".join(word(rng, side) if rng.random() < 0.7 else invented(rng, side) for _ in range(rng.randint(1, most)))
    return rng.choice((made.title(), made.upper(), made[:1].upper() + made[1:]))
