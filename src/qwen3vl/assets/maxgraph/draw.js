// Draws one Draw.io page (an <mxGraphModel> document) with maxGraph. Called by coding_render.py.
'use strict';

// Draw.io's default stylesheet: the names that stand in a style without "=".
const NAMED_STYLES = {
  text: { fillColor: 'none', strokeColor: 'none', align: 'left', verticalAlign: 'top' },
  edgeLabel: { fillColor: 'none', strokeColor: 'none', labelBackgroundColor: '#ffffff', fontSize: 11 },
  label: { fontStyle: 1, align: 'left', spacing: 2, rounded: 1 },
  group: { fillColor: 'none', strokeColor: 'none', verticalAlign: 'top' },
  ellipse: { shape: 'ellipse', perimeter: 'ellipsePerimeter' },
  rhombus: { shape: 'rhombus', perimeter: 'rhombusPerimeter' },
  triangle: { shape: 'triangle', perimeter: 'trianglePerimeter' },
  hexagon: { shape: 'hexagon', perimeter: 'hexagonPerimeter' },
  line: { shape: 'line', strokeWidth: 4, verticalAlign: 'top' },
  image: { shape: 'image', verticalAlign: 'top' },
  swimlane: { shape: 'swimlane', fontSize: 12, fontStyle: 1, startSize: 23, verticalAlign: 'top' },
  arrow: { shape: 'arrow', edgeStyle: 'none' },
};

// Outlines on a unit square: [x, y] points of a closed polygon, then open lines. `size` is the style's, as a share.
const POLYGONS = {
  parallelogram: (s) => [[[s, 0], [1, 0], [1 - s, 1], [0, 1]]],
  trapezoid: (s) => [[[s, 0], [1 - s, 0], [1, 1], [0, 1]]],
  step: (s) => [[[0, 0], [1 - s, 0], [1, 0.5], [1 - s, 1], [0, 1], [s, 0.5]]],
  process: (s) => [[[0, 0], [1, 0], [1, 1], [0, 1]], [[s, 0], [s, 1]], [[1 - s, 0], [1 - s, 1]]],
  card: (s) => [[[s, 0], [1, 0], [1, 1], [0, 1], [0, s]]],
  note: (s) => [[[0, 0], [1 - s, 0], [1, s], [1, 1], [0, 1]], [[1 - s, 0], [1 - s, s], [1, s]]],
  internalStorage: (s) => [[[0, 0], [1, 0], [1, 1], [0, 1]], [[s, 0], [s, 1]], [[0, s], [1, s]]],
  manualInput: (s) => [[[0, s], [1, 0], [1, 1], [0, 1]]],
  offPageConnector: (s) => [[[0, 0], [1, 0], [1, 1 - s], [0.5, 1], [0, 1 - s]]],
  cube: (s) => [[[0, 0], [1 - s, 0], [1, s], [1, 1], [s, 1], [0, 1 - s]], [[0, 0], [s, s], [1, s]], [[s, s], [s, 1]]],
  document: () => [[[0, 0], [1, 0], [1, 0.85], [0.75, 0.78], [0.5, 0.85], [0.25, 0.95], [0, 0.88]]],
  tape: () => [[[0, 0.1], [0.25, 0.18], [0.75, 0.02], [1, 0.1], [1, 0.9], [0.75, 0.82], [0.25, 0.98], [0, 0.9]]],
  callout: () => [[[0, 0], [1, 0], [1, 0.7], [0.6, 0.7], [0.5, 1], [0.45, 0.7], [0, 0.7]]],
};
const SHARES = { parallelogram: 0.2, trapezoid: 0.2, step: 0.2, process: 0.1, card: 0.2, note: 0.2, cube: 0.15,
  internalStorage: 0.15, manualInput: 0.3, offPageConnector: 0.35 };
const ALIASES = { cylinder2: 'cylinder', cylinder3: 'cylinder', datastore: 'cylinder', umlActor: 'actor',
  singleArrow: 'arrow', flexArrow: 'arrowConnector', doubleEllipse: 'doubleEllipse', table: 'swimlane',
  tableRow: 'rectangle', partialRectangle: 'rectangle', link: 'connector', ext: 'rectangle', rect: 'rectangle' };

// A size of 1 or more is in pixels: of the width for the leaning shapes, of the shorter side for the others.
function shareOf(kind, style, w, h) {
  const given = Number(style?.size);
  const whole = ['parallelogram', 'trapezoid', 'step'].includes(kind) ? w : Math.min(w, h);
  return given > 0 ? Math.min(0.5, given >= 1 ? given / whole : given) : SHARES[kind];
}

// Where the ray from the middle of a shape to the next point of an edge leaves its outline.
function perimeterOf(kind) {
  return (bounds, vertex, next, orthogonal) => {
    const { x, y, width: w, height: h } = bounds;
    const from = [x + w / 2, y + h / 2];
    if (orthogonal && next.x >= x && next.x <= x + w) from[0] = next.x;
    else if (orthogonal && next.y >= y && next.y <= y + h) from[1] = next.y;
    const ray = [next.x - from[0], next.y - from[1]];
    const corners = POLYGONS[kind](shareOf(kind, vertex?.style, w, h))[0].map(([u, v]) => [x + u * w, y + v * h]);
    let nearest = 0;
    corners.forEach((a, at) => {
      const b = corners[(at + 1) % corners.length];
      const side = [b[0] - a[0], b[1] - a[1]];
      const across = ray[0] * side[1] - ray[1] * side[0];
      if (!across) return;
      const along = ((a[0] - from[0]) * side[1] - (a[1] - from[1]) * side[0]) / across;
      const on = ((a[0] - from[0]) * ray[1] - (a[1] - from[1]) * ray[0]) / across;
      if (on >= 0 && on <= 1 && along > nearest) nearest = along;
    });
    return new maxgraph.Point(from[0] + nearest * ray[0], from[1] + nearest * ray[1]);
  };
}

class Polygons extends maxgraph.Shape {
  paintVertexShape(canvas, x, y, w, h) {
    POLYGONS[this.kind](shareOf(this.kind, this.style, w, h)).forEach((points, number) => {
      canvas.begin();
      points.forEach(([u, v], at) => canvas[at ? 'lineTo' : 'moveTo'](x + u * w, y + v * h));
      if (number === 0) canvas.close();
      canvas[number === 0 ? 'fillAndStroke' : 'stroke']();
    });
  }
}

function prepare(graph, known) {
  for (const kind of Object.keys(POLYGONS)) {
    maxgraph.ShapeRegistry.add(kind, class extends Polygons { kind = kind; });
    known.add(kind);
  }
  for (const kind of ['parallelogram', 'trapezoid', 'step', 'callout']) {
    maxgraph.PerimeterRegistry.add(`${kind}Perimeter`, perimeterOf(kind));
  }
  const sheet = graph.getStylesheet();
  for (const [name, style] of Object.entries(NAMED_STYLES)) sheet.putCellStyle(name, style);
  Object.assign(sheet.getDefaultVertexStyle(), { fillColor: '#ffffff', strokeColor: '#000000', fontColor: '#000000',
    fontSize: 12, fontFamily: 'Helvetica', shadow: false, gradientColor: 'none' });
  Object.assign(sheet.getDefaultEdgeStyle(), { strokeColor: '#000000', fontColor: '#000000', fontSize: 11,
    fontFamily: 'Helvetica', endArrow: 'classic', labelBackgroundColor: '#ffffff' });
}

// <object label="..." id="..."><mxCell .../></object> and UserObject carry what a cell has plus the user's own fields.
function unwrapped(xml) {
  const page = new DOMParser().parseFromString(xml, 'text/xml');
  for (const object of [...page.querySelectorAll('object, UserObject')]) {
    const cell = object.querySelector('mxCell');
    cell.setAttribute('id', object.getAttribute('id'));
    cell.setAttribute('value', object.getAttribute('label') ?? '');
    object.replaceWith(cell);
  }
  return new XMLSerializer().serializeToString(page);
}

function draw(xml) {
  const place = document.getElementById('graph');
  const graph = new maxgraph.Graph(place);
  const known = new Set(['rectangle', 'ellipse', 'doubleEllipse', 'rhombus', 'cylinder', 'connector', 'actor', 'triangle',
    'hexagon', 'cloud', 'line', 'arrow', 'arrowConnector', 'label', 'swimlane', 'image']);
  const unknown = new Set();
  prepare(graph, known);
  graph.setHtmlLabels(true);
  graph.setEnabled(false);
  graph.options.foldingEnabled = false; // its icons would be fetched
  const model = graph.getDataModel();
  new maxgraph.ModelXmlSerializer(model).import(unwrapped(xml));
  model.beginUpdate();
  for (const cell of Object.values(model.cells ?? {})) {
    const style = cell.style ?? {};
    let shape = ALIASES[style.shape] ?? style.shape;
    if (shape && !known.has(shape)) {
      unknown.add(String(shape));
      shape = undefined;
    }
    const changed = { ...style, shape };
    if (shape === undefined) delete changed.shape;
    if (typeof style.perimeter === 'string' && !maxgraph.PerimeterRegistry.get(style.perimeter)) delete changed.perimeter;
    if (style.whiteSpace === undefined && cell.isVertex() && !style.html) changed.whiteSpace = 'nowrap';
    model.setStyle(cell, changed);
  }
  model.endUpdate();
  graph.view.validate();
  const bounds = graph.getGraphBounds();
  const border = 10;
  graph.view.setTranslate(border - bounds.x, border - bounds.y);
  place.style.width = `${Math.ceil(bounds.width + 2 * border)}px`;
  place.style.height = `${Math.ceil(bounds.height + 2 * border)}px`;
  return { width: bounds.width + 2 * border, height: bounds.height + 2 * border, unknown: [...unknown] };
}
