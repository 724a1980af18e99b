"""Draws receipt.png, the picture that the demo asks about."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

LINES = [
    ("CAFE AM MARKT", ""),
    ("Market Square 7", ""),
    ("2026-10-14   09:42", ""),
    ("", ""),
    ("2 x Coffee", "5.80"),
    ("1 x Croissant", "2.40"),
    ("1 x Orange juice", "3.90"),
    ("", ""),
    ("Total EUR", "12.10"),
    ("Cash", "20.00"),
    ("Change", "7.90"),
]


def main() -> None:
    picture = Image.new("RGB", (448, 576), (250, 248, 243))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=26)
    for i, (name, price) in enumerate(LINES):
        y = 40 + 44 * i
        draw.text((36, y), name, fill=(35, 35, 40), font=font)
        draw.text((412, y), price, fill=(35, 35, 40), font=font, anchor="ra")
    draw.line((36, 380, 412, 380), fill=(35, 35, 40), width=2)
    picture.save(Path(__file__).with_name("receipt.png"))


if __name__ == "__main__":
    main()
