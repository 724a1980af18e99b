"""What is written on buttons, fields and menus. Words belong to sides as all words do."""

from __future__ import annotations

import random
from functools import lru_cache

from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.sides import of_side
from qwen3vl.train.synthetic.words import word

VERBS = """OK|Cancel|Save|Open|Close|Send|Delete|Edit|Search|Next|Back|Submit|Apply|Reset|Login|Sign in|Sign up
Sign out|Register|Continue|Finish|Start|Stop|Pause|Play|Retry|Refresh|Reload|Upload|Download|Print|Share|Copy|Paste
Cut|Undo|Redo|Add|Remove|Create|Update|Install|Help|Exit|Quit|Yes|No|Accept|Decline|Agree|Skip|Done|Confirm|Browse
Choose|Select all|Clear|Filter|Sort|Export|Import|Connect|Disconnect|Subscribe|Follow|Reply|Forward|Archive|Move
Rename|Duplicate|Preview|Publish|Buy now|Checkout|Add to cart|Order|Pay|Book|Call|Chat|Contact us|Learn more
Read more|Show more|See all|View|Hide|Show|Expand|Collapse|Zoom in|Zoom out|Rotate|Crop|Merge|Split|Insert|Format
Test|Run|Build|Debug|Deploy|Save as|Save all|New file|New folder|Go|Find|Replace|Join|Leave|Invite|Block|Report|Like
Comment|Post|Enable|Disable|Lock|Unlock|Mute|Record|Scan|Sync|Backup|Restore|Verify|Allow|Deny|Dismiss|Got it
Not now|Later|Try again|Get started|Log in|Log out|Change|Use default|Discard|Keep|Resume|Translate"""
FIELDS = """Name|First name|Last name|Email|Password|User name|Phone|Address|City|Country|Zip code|State|Street
Company|Subject|Message|Comment|Title|Date|Time|Amount|Price|Quantity|Search|Website|Birthday|Age|Card number|Code
Coupon|Notes|Description|Keyword|From|To|Check-in|Check-out|Guests|Department|Job title|Salary|Weight|Height
Language|Currency|Invoice|Account|Bank|Nickname|Confirm password|Reference|Category|Color|Size|Order number|Tax
Discount|Budget|Deadline|Room|Floor|Host|Port|Path|File name|Version|License key|Serial number|Security code
Full name|Mobile|Fax|Region|Postcode|House number|Gender|Passport"""
OPTIONS = """Remember me|Keep me signed in|I agree|Send me news|Dark mode|Notifications|Wi-Fi|Bluetooth|Location
Airplane mode|Sound|Vibration|Auto save|Show hidden files|Wrap lines|Spell check|Read only|Private|Public|Read aloud
Full screen|Gift wrap|Express delivery|Pick up|Newsletter|Cookies|Analytics|Battery saver|Night light|Hotspot
Data saver|Auto update|Two factor|Large text|High contrast|Captions|Loop|Shuffle|Match case|Whole word|Subfolders
Pets|Parking|Breakfast|Sea view|Balcony|Kitchen|Email alerts|Text alerts|Sync contacts|Roaming|Screen lock
Face unlock|Start with system|Grid lines|Ruler|Status bar|Tool bar"""
PLACES = """Home|About|Contact|Products|Services|News|Blog|Team|Careers|Support|FAQ|Pricing|Gallery|Events|Shop
Account|Settings|Profile|Messages|Inbox|Sent|Drafts|Spam|Trash|Favorites|History|Downloads|Pictures|Music|Videos
Documents|Desktop|Calendar|Contacts|Tasks|Notes|Files|Dashboard|Reports|Orders|Customers|Users|Groups|Roles|Billing
Security|Privacy|Terms|Sitemap|Overview|Details|Reviews|Activity|Statistics|General|Advanced|Network|Display|Storage
Apps|Updates|Recent|Popular|Trending|Sports|Politics|Business|Technology|Science|Health|Travel|Food|Fashion|Weather
Markets|Opinion|Culture|Books|Games|Movies|Radio|Podcasts|Library"""
MENUS = "File|Edit|View|Insert|Format|Tools|Window|Help|Options|Layout|Image|Layer|Select|Filter|Project|Build|Go|Data"


@lru_cache(maxsize=32)
def _list(side: Side, words: str) -> tuple[str, ...]:
    return of_side(side, "word", words.replace("\n", "|").split("|"), str.lower)


class Names:
    """Texts that do not repeat on one screen, whatever their case."""

    def __init__(self, rng: random.Random, side: Side) -> None:
        self._rng, self._side = rng, side
        self._taken: set[str] = set()

    def one(self, words: str, invented: float = 0.4) -> str:
        """From a list, or (with that probability) one or two words of the dictionary."""
        listed = _list(self._side, words)
        while True:
            made = self._made() if self._rng.random() < invented else self._rng.choice(listed)
            invented += 0.02  # a long screen may use up the list
            if not any(made.lower() in other or other in made.lower() for other in self._taken):
                self._taken.add(made.lower())
                return made

    def _made(self) -> str:
        words = [word(self._rng, self._side).lower() for _ in range(self._rng.choice((1, 1, 2)))]
        text = " ".join(words)
        return text if self._rng.random() < 0.1 else text[:1].upper() + text[1:]

    def cased(self, text: str, style: float) -> str:
        """As a theme writes all its buttons: CAPITALS in a tenth of them."""
        return text.upper() if style < 0.1 else text
