"""Draw.io files: forms, inflating, and faults named by cell."""

from __future__ import annotations

import base64
import zlib
from urllib.parse import quote

import pytest

from qwen3vl.errors import ParseError
from qwen3vl.tasks.drawio import MAX_BYTES, read_drawio

BOX = '<mxGeometry x="0" y="0" width="80" height="40" as="geometry"/>'
A = f'<mxCell id="a" value="Start" vertex="1" parent="1">{BOX}</mxCell>'
B = f'<mxCell id="b" value="&lt;b&gt;End&lt;/b&gt;" vertex="1" parent="1">{BOX}</mxCell>'
EDGE = '<mxCell id="e" edge="1" parent="1" source="a" target="b"><mxGeometry relative="1" as="geometry"/></mxCell>'


def model(*cells: str, layers: str = '<mxCell id="0"/><mxCell id="1" parent="0"/>') -> str:
    return f"<mxGraphModel><root>{layers}{''.join(cells)}</root></mxGraphModel>"


def problems(*cells: str) -> tuple[str, ...]:
    return read_drawio(model(*cells)).problems


def packed(xml: str) -> str:
    press = zlib.compressobj(wbits=-15)
    return base64.b64encode(press.compress(quote(xml).encode()) + press.flush()).decode()


def test_a_sound_diagram_in_every_form() -> None:
    plain = model(A, B, EDGE)
    forms = [
        plain,
        plain.removeprefix("<mxGraphModel>").removesuffix("</mxGraphModel>"),
        f'<diagram name="P">{plain}</diagram>',
        f'<?xml version="1.0" encoding="UTF-8"?>\n<mxfile><diagram>{plain}</diagram></mxfile>',
        f"<mxfile><diagram>{packed(plain)}</diagram></mxfile>",
    ]
    for form in forms:
        (page,) = read_drawio(form).pages
        assert (page.num_shapes, page.num_connections, page.problems) == (2, 1, ())
        assert page.xml.startswith("<mxGraphModel>") and 'source="a"' in page.xml


def test_wrapped_cells_count_by_their_wrappers_id() -> None:
    wrapped = f'<UserObject label="Start" id="a" link="x"><mxCell vertex="1" parent="1">{BOX}</mxCell></UserObject>'
    assert problems(wrapped, B, EDGE) == ()


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ((A, B, EDGE.replace('target="b"', 'target="z"')), "cell 'e' has the target 'z', which does not exist"),
        ((A, EDGE.replace(' source="a" target="b"', "")), "cell 'e' has neither a source nor a sourcePoint"),
        ((A.replace('parent="1"', 'parent="9"'),), "cell 'a' ('Start') has the parent '9', which does not exist"),
        ((A.replace(BOX, ""),), "cell 'a' ('Start') has no mxGeometry"),
        ((A.replace('width="80"', 'width="wide"'),), "cell 'a' ('Start'): width='wide' of its mxGeometry is no number"),
        ((A.replace('width="80"', 'width="nan"'),), "cell 'a' ('Start'): width='nan' of its mxGeometry is no number"),
        ((A.replace('height="40"', 'height="-4"'),), "cell 'a' ('Start'): its height is -4"),
        ((A.replace(' as="geometry"', ""),), "cell 'a' ('Start'): its mxGeometry lacks as=\"geometry\""),
        ((A, A), "the id 'a' is used by 2 cells"),
        ((A.replace(' id="a"', ""),), "the cell number 3 (without an id) ('Start') has no id"),
        ((A.replace('vertex="1"', 'vertex="1" edge="1"'),), "cell 'a' ('Start') is both a vertex and an edge"),
        ((B.replace('parent="1"', 'parent="b"'),), "cell 'b' ('End') is inside itself by way of its parents"),
        ((A.replace(' parent="1"', ""),), "2 cells have no parent"),
        (("<shape id='s'/>",), "<shape> stands in <root>"),
        (("<object id='o'/>",), "<object id='o'> holds no mxCell"),
    ],
)  # fmt: skip
def test_faults_are_named(cells: tuple[str, ...], told: str) -> None:
    assert any(p.startswith(told) for p in problems(*cells)), problems(*cells)


def test_an_edge_may_hang_between_points() -> None:
    points = '<mxPoint x="1" y="2" as="sourcePoint"/><mxPoint x="3" y="4" as="targetPoint"/>'
    loose = f'<mxCell id="e" edge="1" parent="1"><mxGeometry as="geometry">{points}</mxGeometry></mxCell>'
    assert problems(loose) == ()
    assert problems(loose.replace('x="3"', 'x="three"')) == ("cell 'e': a point ('three', '4') is no pair of numbers",)


def test_problems_name_their_page_where_there_are_several() -> None:
    bad = model(A, B, EDGE.replace('source="a"', 'source="q"'))
    file = read_drawio(f'<mxfile><diagram name="One">{model(A)}</diagram><diagram>{bad}</diagram></mxfile>')
    assert [p.name for p in file.pages] == ["One", "Page-2"]
    assert file.problems == ("page 'Page-2': cell 'e' has the source 'q', which does not exist",)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("<mxfile><diagram>", "not well-formed XML"),
        ("<html/>", "a <html> without a page"),
        ("<mxfile/>", "without a page"),
        ("<mxfile><diagram/></mxfile>", "the page 'Page-1' is empty"),
        ("<mxfile><diagram>%%%</diagram></mxfile>", "neither XML nor compressed XML"),
        (f"<mxfile><diagram>{packed('<b/>')}</diagram></mxfile>", "holds a <b>"),
        (f"<mxfile><diagram>{packed(model(A, B, EDGE))[:40]}</diagram></mxfile>", "compressed and cut off"),
        ('<!DOCTYPE x [<!ENTITY a "aa">]><mxfile>&a;</mxfile>', "declares a document type"),
        (f"<mxfile><diagram>{packed('x' * (MAX_BYTES + 1))}</diagram></mxfile>", "more than 16 MB when inflated"),
    ],
)  # fmt: skip
def test_what_is_no_diagram(source: str, told: str) -> None:
    with pytest.raises(ParseError, match=told):
        read_drawio(source)
