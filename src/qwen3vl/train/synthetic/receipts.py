"""Receipts: shops, goods, taxes that add up, printed in several layouts.

Money is counted in cents; what is printed and what is answered come from the same numbers:
subtotal = sum(quantity x price); tax on top of it, or contained in it; total; cash - total = change.
Worked example (also a test): 2 x 3.00 + 1 x 4.50 = 10.50, 10 % on top is 1.05, total 11.55, cash 20.00, change 8.45.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from qwen3vl.train.synthetic import words
from qwen3vl.train.synthetic.faces import Kind, pick_face
from qwen3vl.train.synthetic.roll import Cell, Roll
from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.sides import ranked


@dataclass(frozen=True, slots=True)
class Money:
    """How a shop writes amounts."""

    before: str = ""
    after: str = ""
    comma: bool = False

    def text(self, cents: int) -> str:
        """1234 is "$12.34", "12,34 €", ..."""
        written = f"{cents // 100}.{cents % 100:02}"
        return self.before + (written.replace(".", ",") if self.comma else written) + self.after


MONEY = (
    Money(), Money("$"), Money("€"), Money("£"), Money(after=" €", comma=True), Money(comma=True), Money("RM"),
    Money("CHF "), Money("EUR "), Money(after=" kr", comma=True), Money("$ "), Money(after=" EUR"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Good:
    name: str
    quantity: int
    price: int  # cents of one

    @property
    def amount(self) -> int:
        return self.quantity * self.price


@dataclass(frozen=True, slots=True)
class Sale:
    """What was sold. `tax_on_top`: the tax is added to the subtotal; otherwise it is contained in the prices."""

    company: str
    street: str
    city: str
    phone: str
    date: str
    time: str
    number: str
    cashier: str
    goods: tuple[Good, ...]
    tax_rate: int  # per cent; 0: none is printed
    tax_on_top: bool
    cash: int  # 0: paid by card
    money: Money

    @property
    def subtotal(self) -> int:
        return sum(good.amount for good in self.goods)

    @property
    def tax(self) -> int:
        """Rounded half up to whole cents."""
        share = self.tax_rate / (100 if self.tax_on_top else 100 + self.tax_rate)
        return int(self.subtotal * share + 0.5)

    @property
    def total(self) -> int:
        return self.subtotal + (self.tax if self.tax_on_top else 0)

    @property
    def change(self) -> int:
        return self.cash - self.total


@dataclass(frozen=True, slots=True)
class ReceiptStyle:
    """A layout. `name` decides its side."""

    name: str
    middle: bool = True  # the head in the middle
    goods: str = "line"  # "line": 2 x name ... amount; "two": name, then 2 x price ... amount; "columns": with a head
    rule: str = "dashes"
    total_size: float = 1.0
    total_box: str = ""
    capitals: bool = False


STYLES = (
    ReceiptStyle("slip"),
    ReceiptStyle("market", goods="two", capitals=True, total_size=1.3),
    ReceiptStyle("bistro", middle=False, rule="line", total_size=1.25),
    ReceiptStyle("kiosk", goods="columns", rule="double"),
    ReceiptStyle("pharmacy", middle=False, goods="two", rule="line", total_box="frame"),
    ReceiptStyle("garage", goods="columns", rule="line", total_box="plate", total_size=1.15),
    ReceiptStyle("bakery", goods="line", rule="double", total_size=1.4),
    ReceiptStyle("counter", goods="columns", rule="dashes", capitals=True),
)
TOTALS = ("TOTAL", "Total", "TOTAL DUE", "Amount due", "Grand total", "Sum", "To pay")
TAXES = ("Tax", "VAT", "GST", "MwSt", "TVA", "Sales tax")
SUFFIXES = (
    "Market",
    "Store",
    "Cafe",
    "Foods",
    "Ltd",
    "GmbH",
    "Bakery",
    "Deli",
    "& Co",
    "Trading",
    "Shop",
    "Bistro",
    "Inc.",
    "",
)
STREETS = ("Street", "Road", "Avenue", "Lane", "Square", "Way", "Drive", "Hill")


def sale(rng: random.Random, side: Side, goods: int) -> Sale:
    """A sale of `goods` different goods."""
    bought = tuple(_good(rng, side) for _ in range(goods))
    made = Sale(
        company=_company(rng, side),
        street=f"{rng.randint(1, 240)} {words.place(rng, side)} {rng.choice(STREETS)}",
        city=f"{rng.randint(1000, 99999)} {words.place(rng, side)}",
        phone=words.phone(rng),
        date=words.date(rng),
        time=f"{rng.randint(7, 22):02}:{rng.randrange(60):02}",
        number=rng.choice(("", "R", "A-", "OR", "#")) + str(rng.randint(100, 99999999)),
        cashier=words.surname(rng, side),
        goods=bought,
        tax_rate=rng.choice((0, 5, 7, 8, 10, 19, 20, 21, 25)),
        tax_on_top=rng.random() < 0.5,
        cash=0,
        money=rng.choice(MONEY),
    )
    return made if rng.random() < 0.4 else _paid(rng, made)


def _paid(rng: random.Random, made: Sale) -> Sale:
    """The same, paid with the next round sum."""
    step = rng.choice((500, 1000, 2000, 5000))
    return replace(made, cash=-(-made.total // step) * step)


def _good(rng: random.Random, side: Side) -> Good:
    name = words.word(rng, side).capitalize()
    if rng.random() < 0.5:
        name += " " + (words.word(rng, side) if rng.random() < 0.7 else words.invented(rng, side))
    price = rng.choice((rng.randrange(30, 1000), rng.randrange(5, 200) * 10, rng.randrange(100, 9000)))
    return Good(name, rng.choice((1, 1, 1, 2, 2, 3, 4, 6, 10)), price)


def _company(rng: random.Random, side: Side) -> str:
    name = words.surname(rng, side) if rng.random() < 0.6 else words.word(rng, side).capitalize()
    if rng.random() < 0.3:
        name += " " + words.word(rng, side).capitalize()
    return f"{name} {rng.choice(SUFFIXES)}".strip()


# ---------------------------------------------------------------------------------------- printing


@dataclass(frozen=True, slots=True)
class Printed:
    """A receipt as rows.

    Attributes:
        roll: not yet drawn.
        fields: the text of every field that stands on it, as it is printed: company, address, phone, date, time,
            receipt_number, cashier, subtotal, tax, total, cash, change.
        goods: with their names as far as there was room for them.
    """

    roll: Roll
    fields: dict[str, str]
    goods: tuple[Good, ...]


def print_receipt(rng: random.Random, side: Side, made: Sale) -> Printed:
    """A sale in one of the side's styles."""
    style = rng.choice(ranked(side, "receipt style", STYLES, lambda s: s.name))
    kinds: tuple[Kind, ...] = ("mono",) if rng.random() < 0.6 else ("plain",)
    needed = made.money.text(0) + made.company + made.street + made.city + "".join(g.name for g in made.goods)
    face = pick_face(rng, side, kinds, needed + needed.upper())
    size = rng.choice((10, 11, 12, 13, 14, 16, 18, 21))
    width = round(rng.choice((224, 256, 288, 320, 352)) * max(1.0, size / 12))
    roll = Roll(width, rng.randint(8, 18), face, size, rng.uniform(1.2, 1.45))
    printed: dict[str, str] = {}
    _head(rng, roll, style, made, printed)
    roll.rule(style.rule)
    goods = tuple(_good_rows(roll, style, made.money, good) for good in made.goods)
    roll.rule(style.rule)
    _sums(rng, roll, style, made, printed)
    thanks = rng.choice(("Thank you!", "THANK YOU", "Please come again", "Goods once sold are final"))
    if rng.random() < 0.5 and roll.fits(thanks):
        roll.gap()
        roll.row(Cell(thanks, 0.5, "m"))
    return Printed(roll, printed, goods)


def _head(rng: random.Random, roll: Roll, style: ReceiptStyle, made: Sale, printed: dict[str, str]) -> None:
    at, align = (0.5, "m") if style.middle else (0.0, "l")

    def line(text: str, key: str = "", size: float = 1.0) -> bool:
        shown = text.upper() if style.capitals and key == "company" else text
        if not roll.fits(shown, 1.0, size):
            return False
        roll.row(Cell(shown, at, align, key, size))
        if key:
            printed[key] = f"{printed[key]}, {shown}" if key in printed else shown
        return True

    if not line(made.company, "company", rng.choice((1.0, 1.3, 1.5))):
        line(made.company.split()[0], "company") or line("M", "company")
    if rng.random() < 0.8 and roll.fits(made.street) and roll.fits(made.city):
        line(made.street, "address")
        line(made.city, "address")
    if rng.random() < 0.5 and roll.fits(f"Tel {made.phone}", 0.95):
        _labelled(roll, at, align, rng.choice(("Tel", "Tel:", "Phone")), made.phone, "phone", printed)
    roll.gap()
    date_label = rng.choice(("", "Date", "Date:"))
    if rng.random() < 0.5 and roll.fits(f"{date_label} {made.date}      {made.time}"):
        roll.row(*_pair(roll, date_label, made.date, "date", printed), Cell(made.time, 1.0, "r", "time"))
        printed["time"] = made.time
    else:
        roll.row(*_pair(roll, date_label, made.date, "date", printed))
    if rng.random() < 0.6:
        label = rng.choice(("Receipt", "Receipt no.", "Invoice", "Bill", "No."))
        roll.row(Cell(label), Cell(made.number, 1.0, "r", "receipt_number"))
        printed["receipt_number"] = made.number
    if rng.random() < 0.35:
        roll.row(Cell(rng.choice(("Cashier", "Served by"))), Cell(made.cashier, 1.0, "r", "cashier"))
        printed["cashier"] = made.cashier


def _labelled(roll: Roll, at: float, align: str, label: str, value: str, key: str, printed: dict[str, str]) -> None:
    """A label and its value on one row; in the middle they share it, hung on both sides of a gap."""
    if align == "m":
        font = roll.font()
        whole = font.length(f"{label} {value}")
        left = 0.5 - whole / 2 / roll.inner
        roll.row(Cell(label, left), Cell(value, left + font.length(f"{label} ") / roll.inner, "l", key))
    else:
        roll.row(*_pair(roll, label, value, key, printed))
    printed[key] = value


def _pair(roll: Roll, label: str, value: str, key: str, printed: dict[str, str]) -> list[Cell]:
    printed[key] = value
    if not label:
        return [Cell(value, 0.0, "l", key)]
    return [Cell(label), Cell(value, roll.font().length(f"{label} ") / roll.inner, "l", key)]


def _good_rows(roll: Roll, style: ReceiptStyle, money: Money, good: Good) -> Good:
    """Sets the row or rows of a good; the good with its name as set."""
    amount, name = money.text(good.amount), good.name.upper() if style.capitals else good.name
    room = 1 - (roll.font().length(amount) + roll.size) / roll.inner
    many = f"{good.quantity} x " if good.quantity > 1 else ""
    if style.goods == "two":
        name = _cut(roll, name, 1.0)
        roll.row(Cell(name))
        roll.row(Cell(f"{good.quantity} x {money.text(good.price)}", 0.06), Cell(amount, 1.0, "r"))
    elif style.goods == "columns":
        name = _cut(roll, name, room - 0.12)
        roll.row(Cell(str(good.quantity)), Cell(name, 0.12), Cell(amount, 1.0, "r"))
    else:
        name = _cut(roll, name, room - roll.font().length(many) / roll.inner)
        roll.row(Cell(many + name), Cell(amount, 1.0, "r"))
    return replace(good, name=name)


def _cut(roll: Roll, name: str, share: float) -> str:
    while len(name) > 2 and not roll.fits(name, share):
        name = name[:-1].rstrip()
    return name


def _sums(rng: random.Random, roll: Roll, style: ReceiptStyle, made: Sale, printed: dict[str, str]) -> None:
    def amount(label: str, key: str, cents: int, size: float = 1.0, box: str = "") -> None:
        text = made.money.text(cents)
        if not roll.fits(f"{label}  {text}", 1.0, size):
            size, label = 1.0, label.split()[0]
        roll.row(Cell(label, 0.0, "l", "", size, box), Cell(text, 0.99 if box else 1.0, "r", key, size))
        printed[key] = text

    if made.tax_rate and (made.tax_on_top or rng.random() < 0.3):
        amount(
            rng.choice(("Subtotal", "SUBTOTAL", "Net")) if made.tax_on_top else "Subtotal", "subtotal", made.subtotal
        )
    tax_label = f"{rng.choice(TAXES)} {made.tax_rate}%"
    if made.tax_rate and made.tax_on_top:
        amount(tax_label, "tax", made.tax)
    amount(rng.choice(TOTALS), "total", made.total, style.total_size, style.total_box)
    if made.tax_rate and not made.tax_on_top:
        amount(f"incl. {tax_label}", "tax", made.tax)
    if made.cash:
        roll.gap(0.3)
        amount(rng.choice(("Cash", "CASH", "Paid")), "cash", made.cash)
        amount(rng.choice(("Change", "CHANGE")), "change", made.change)
