"""What forms ask for: names, dates, numbers, each under several labels."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from qwen3vl.train.synthetic import words
from qwen3vl.train.synthetic.sample import Side

Value = Callable[[random.Random, Side], str]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a form: its name in the question, what it may be called on paper, what stands in it."""

    key: str
    labels: tuple[str, ...]
    value: Value


def _street(rng: random.Random, side: Side) -> str:
    return f"{rng.randint(1, 200)} {words.place(rng, side)} {rng.choice(('Road', 'Street', 'Way'))}"


def _mail(rng: random.Random, side: Side) -> str:
    return f"{words.invented(rng, side)}@{words.invented(rng, side)}.{rng.choice(('com', 'org', 'net'))}"


def _room(rng: random.Random, side: Side) -> str:
    return f"{rng.choice('ABCDE')}{rng.randint(1, 499)}"


def _weight(rng: random.Random, side: Side) -> str:
    return f"{rng.randint(1, 999)} {rng.choice(('kg', 'g', 'lb'))}"


def _company(rng: random.Random, side: Side) -> str:
    return f"{words.surname(rng, side)} {rng.choice(('Ltd', 'Inc.', 'GmbH', 'SA'))}"


def _status(rng: random.Random, side: Side) -> str:
    return rng.choice(("open", "closed", "paid", "pending", "approved", "rejected"))


def _account(rng: random.Random, side: Side) -> str:
    country = rng.choice(("DE", "FR", "GB", "CH"))
    return f"{country}{rng.randint(10, 99)} {rng.randint(1000, 9999)} {rng.randint(1000, 9999)}"


def _date(rng: random.Random, side: Side) -> str:
    return words.date(rng)


def _digits(low: int, high: int, before: str = "") -> Value:
    return lambda rng, side: f"{before}{rng.randint(low, high)}"


FIELDS = (
    Field("name", ("Name", "Full name", "Customer", "Applicant"), words.person),
    Field("first_name", ("First name", "Given name", "Forename"), words.surname),
    Field("last_name", ("Last name", "Surname", "Family name"), words.surname),
    Field("date", ("Date", "Issued", "Date of issue"), _date),
    Field("date_of_birth", ("Date of birth", "Birth date", "Born", "DOB"), _date),
    Field("city", ("City", "Town", "Place"), words.place),
    Field("street", ("Street", "Address", "Street address"), _street),
    Field("phone", ("Phone", "Telephone", "Tel.", "Mobile"), lambda rng, side: words.phone(rng)),
    Field("email", ("E-mail", "Email", "Mail"), _mail),
    Field("number", ("No.", "Number", "Reference", "Ref. no."), words.code),
    Field("invoice_number", ("Invoice no.", "Invoice number", "Invoice #"), _digits(1000, 99999, "INV-")),
    Field("order_number", ("Order no.", "Order", "Order ID"), _digits(10000, 9999999)),
    Field("amount", ("Amount", "Amount due", "Price", "Fee"), lambda rng, side: words.price(rng)),
    Field("department", ("Department", "Dept.", "Unit"), lambda rng, side: words.word(rng, side).capitalize()),
    Field("room", ("Room", "Room no."), _room),
    Field("weight", ("Weight", "Net weight"), _weight),
    Field("quantity", ("Quantity", "Qty", "Pieces"), _digits(1, 500)),
    Field("time", ("Time", "Arrival", "Start"), lambda rng, side: words.time_of_day(rng)),
    Field("company", ("Company", "Employer", "Firm"), _company),
    Field("status", ("Status", "State"), _status),
    Field("signature", ("Signed", "Signature", "Signed by"), words.surname),
    Field("postal_code", ("Postal code", "ZIP", "Postcode"), _digits(1000, 99999)),
    Field("account", ("Account", "Account no.", "IBAN"), _account),
    Field("valid_until", ("Valid until", "Expires", "Expiry date"), _date),
)
