// Reads values off the curves, and shows some of the steps larger; what is drawn without it is the whole.
//
// The pointer, a finger or the arrow keys choose a step, whose values are written below the curve. Dragging across a
// curve, or + and −, zooms all curves of the page to the same steps; a double click, Escape or the button shows all.
"use strict";
const SVG = "http://www.w3.org/2000/svg", LOG_SCALE_FROM = 30, DRAGGED_PIXELS = 8, FEWEST_STEPS = 4;
const figures = [];
let range = null; // first and last step that all curves show; null for all

function add(parent, tag, attributes, text = "") {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  parent.append(element);
  return element;
}

function number(value, digits = 0) {
  return value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits});
}

// Index of the step nearest to a step, among ascending steps.
function nearest(steps, step) {
  let low = 0, high = steps.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step) low = middle + 1; else high = middle;
  }
  return low > 0 && step - steps[low - 1] <= steps[low] - step ? low - 1 : low;
}

// Round values that cover a range, as in charts/line.py.
function ticks(low, high, about) {
  if (high <= low) {
    const pad = Math.abs(low) * 0.1 || 1;
    [low, high] = [low - pad, high + pad];
  }
  const rough = (high - low) / about, power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].find(factor => factor * power >= rough * 0.999) * power;
  const from = Math.floor(low / size + 1e-9), to = Math.ceil(high / size - 1e-9);
  return Array.from({length: to - from + 1}, (_, index) => Number(((from + index) * size).toPrecision(12)));
}

function logTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const factors = last - first <= 3 ? [1, 2, 5] : [1], stride = Math.max(1, Math.floor((last - first) / 6));
  const values = [];
  for (let power = first; power <= last; power += stride) {
    for (const factor of factors) values.push(Number(`${factor}e${power}`));
  }
  if (values[values.length - 1] < high) values.push(Number(`1e${last}`));
  const from = values.findLastIndex(value => value <= low * 1.0001);
  return values.slice(Math.max(0, from), values.findIndex(value => value >= high * 0.9999) + 1);
}

function plotOf(chart) {
  const [left, right, top, bottom, end] = chart.dataset.plot.split(" ").map(Number);
  return {left, right, top, bottom, end};
}

function xOf(plot, step) {
  const [first, last] = range ?? [0, plot.end];
  return plot.left + (plot.right - plot.left) * (step - first) / (last - first);
}

// The chosen steps of a curve, drawn over the whole, which the style hides meanwhile.
function drawWindow(chart, told) {
  chart.querySelector(".window")?.remove();
  chart.classList.toggle("zoomed", range !== null);
  if (range === null) return;
  const plot = plotOf(chart), [first, last] = range, group = add(chart, "g", {class: "window"});
  const ends = (step, value, error) => value === null ? [] : [value - (error ?? 0), value + (error ?? 0)];
  const all = told.series.flatMap(one => one.points.map(([step, , value, error]) => [step, ends(step, value, error)]));
  const inside = all.filter(([step]) => first <= step && step <= last).flatMap(([, values]) => values);
  const reach = inside.length ? inside : all.flatMap(([, values]) => values);
  const low = Math.min(...reach), high = Math.max(...reach);
  const log = !told.linear && low > 0 && high / low >= LOG_SCALE_FROM;
  const yTicks = log ? logTicks(low, high) : ticks(low, high, 5), scale = log ? Math.log : value => value;
  const bottom = scale(yTicks[0]), top = scale(yTicks[yTicks.length - 1]);
  const y = value => plot.bottom - (plot.bottom - plot.top) * (scale(value) - bottom) / (top - bottom);
  const drawable = value => value !== null && (!log || value > 0);

  const times = told.percent ? 100 : 1, size = (yTicks[1] - yTicks[0]) * times;
  const digits = Math.min(10, Math.max(0, -Math.floor(Math.log10(size) + 1e-9)));
  for (const value of yTicks) {
    const label = log ? value.toLocaleString("en", {maximumSignificantDigits: 10}) : number(value * times, digits);
    add(group, "line", {class: "grid", x1: plot.left, x2: plot.right, y1: y(value), y2: y(value)});
    add(group, "text", {x: plot.left - 7, y: y(value) + 4, "text-anchor": "end"}, label + (told.percent ? " %" : ""));
  }
  const xTicks = ticks(first, last, plot.right > 500 ? 8 : 4).map(Math.floor);
  for (const step of new Set(xTicks)) {
    if (step < first || step > last) continue;
    add(group, "text", {x: xOf(plot, step), y: plot.bottom + 17, "text-anchor": "middle"}, number(step));
  }
  add(group, "line", {class: "axis", x1: plot.left, x2: plot.right, y1: plot.bottom, y2: plot.bottom});
  add(group, "text", {x: (plot.left + plot.right) / 2, y: plot.bottom + 34, "text-anchor": "middle"}, "step");
  add(group, "text", {x: 2, y: 12}, told.label + (log ? " (log scale)" : ""));

  const width = plot.right - plot.left, height = plot.bottom - plot.top;
  const view = {viewBox: `${plot.left} ${plot.top} ${width} ${height}`, x: plot.left, y: plot.top, width, height};
  const inner = add(group, "svg", view); // clips what reaches beyond the steps
  for (const [step, style, label] of told.marks) {
    if (step < first || step > last) continue;
    const x = xOf(plot, step), end = x + 7 * label.length > plot.right;
    add(inner, "line", {class: `mark ${style}`, x1: x, x2: x, y1: plot.top, y2: plot.bottom});
    const place = {x: end ? x - 5 : x + 5, y: style === "epoch" ? plot.top + 11 : plot.bottom - 7};
    add(inner, "text", {class: `label ${style}`, ...place, "text-anchor": end ? "end" : "start"}, label);
  }
  for (const one of told.series) {
    const from = one.points.findIndex(([step]) => step >= first), to = one.points.findLastIndex(([step]) => step <= last);
    const points = one.points.slice(Math.max(0, from < 0 ? one.points.length : from - 1), to + 2);
    let path = "", drawing = false;
    for (const [step, , value] of points) {
      if (drawable(value)) path += `${drawing ? "L" : "M"}${xOf(plot, step).toFixed(1)} ${y(value).toFixed(1)}`;
      drawing = drawable(value);
    }
    for (const [step, , value, error] of points) {
      if (!error || !drawable(value - error)) continue;
      const x = xOf(plot, step);
      add(inner, "line", {class: `bar ${one.style}`, x1: x, x2: x, y1: y(value - error), y2: y(value + error)});
    }
    add(inner, "path", {class: `line ${one.style}`, d: path});
    const dots = one.dots || points.length <= 3 ? points.filter(([, , value]) => drawable(value)) : [];
    for (const [step, , value] of dots) {
      if (first <= step && step <= last) add(inner, "circle", {class: `dot ${one.style}`, cx: xOf(plot, step), cy: y(value), r: 4});
    }
  }
}

function zoom(steps) {
  const end = Math.max(...figures.map(figure => figure.end));
  if (steps !== null) {
    let [first, last] = [Math.floor(Math.min(...steps)), Math.ceil(Math.max(...steps))];
    const lacking = Math.max(0, FEWEST_STEPS - (last - first));
    first = Math.max(0, Math.min(first - Math.floor(lacking / 2), end - FEWEST_STEPS));
    last = Math.min(end, Math.max(last, first + FEWEST_STEPS));
    steps = first <= 0 && last >= end ? null : [first, last];
  }
  range = steps;
  for (const figure of figures) figure.redraw();
  // The address keeps the steps, so that a page which reloads by itself stays where it was.
  const place = range === null ? location.pathname + location.search : `#steps=${range.join("-")}`;
  if (location.protocol !== "about:") history.replaceState(null, "", place);
}

for (const element of document.querySelectorAll("figure[data-values]")) {
  const told = JSON.parse(element.dataset.values);
  const readout = element.querySelector(".readout"), reset = element.querySelector(".reset");
  const drawings = [...element.querySelectorAll(".chart")];
  const series = told.series.filter(one => one.points.length).map(one => ({...one, steps: one.points.map(([step]) => step)}));
  const steps = [...new Set(series.flatMap(one => one.steps))].sort((a, b) => a - b);
  if (!steps.length) continue;
  let chosen = -1;

  function show(index) {
    const [first, last] = range ?? [steps[0], steps[steps.length - 1]];
    const from = Math.max(0, steps.findIndex(step => step >= first)), to = steps.findLastIndex(step => step <= last);
    chosen = Math.min(Math.max(index, from), Math.max(from, to));
    const step = steps[chosen];
    const values = series.map(one => {
      const [at, text] = one.points[nearest(one.steps, step)];
      return `${one.name} ${text}` + (at === step ? "" : ` (step ${number(at)})`);
    });
    readout.textContent = [`step ${number(step)}`, ...values].join(" · ");
    for (const chart of drawings) {
      const plot = plotOf(chart), x = xOf(plot, step);
      chart.querySelector(".pointer")?.remove();
      add(chart, "line", {class: "pointer", x1: x, x2: x, y1: plot.top, y2: plot.bottom});
    }
  }

  function redraw() {
    const step = steps[chosen];
    if (range !== null && (step < range[0] || step > range[1])) chosen = -1;
    reset.hidden = range === null;
    readout.textContent = range === null ? "" : `steps ${number(range[0])} to ${number(range[1])}`;
    for (const chart of drawings) {
      chart.querySelector(".pointer")?.remove();
      drawWindow(chart, told);
    }
  }

  for (const chart of drawings) {
    const plot = plotOf(chart);
    let began = null; // where a drag began: [x on the screen, step]
    let swept = null; // what is drawn over the steps that it covers

    function stepAt(event) {
      const box = chart.getBoundingClientRect(), [first, last] = range ?? [0, plot.end];
      const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
      return Math.min(last, Math.max(first, first + (x - plot.left) / (plot.right - plot.left) * (last - first)));
    }

    function sweep(event) {
      swept?.remove();
      swept = null;
      if (began === null || Math.abs(event.clientX - began[0]) < DRAGGED_PIXELS) return;
      const [from, to] = [began[1], stepAt(event)].sort((a, b) => a - b).map(step => xOf(plot, step));
      swept = add(chart, "rect", {class: "swept", x: from, width: to - from, y: plot.top, height: plot.bottom - plot.top});
    }

    function drop(event) {
      const covered = swept === null || event.type === "pointercancel" ? null : [began[1], stepAt(event)];
      began = null;
      sweep(event);
      if (covered) zoom(covered);
    }

    chart.addEventListener("pointerdown", event => {
      if (event.button !== 0 || !event.isPrimary) return;
      chart.setPointerCapture(event.pointerId);
      began = [event.clientX, stepAt(event)];
      show(nearest(steps, stepAt(event)));
    });
    chart.addEventListener("pointermove", event => {
      show(nearest(steps, stepAt(event)));
      sweep(event);
    });
    chart.addEventListener("pointerup", drop);
    chart.addEventListener("pointercancel", drop);
    chart.addEventListener("dblclick", () => zoom(null));
    chart.setAttribute("tabindex", "0");
    chart.addEventListener("keydown", event => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const jump = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity}[event.key];
      const times = {"+": 0.5, "=": 0.5, "-": 2, "−": 2}[event.key];
      if (jump !== undefined) {
        show(chosen < 0 && jump > 0 && jump < Infinity ? 0 : chosen + jump);
      } else if (times) {
        const [first, last] = range ?? [0, plot.end], half = (last - first) * times / 2;
        const centre = chosen < 0 ? (first + last) / 2 : steps[chosen];
        zoom([centre - half, centre + half]);
      } else if (event.key === "Escape" && range !== null) {
        zoom(null);
      } else return;
      event.preventDefault();
    });
  }
  reset.addEventListener("click", () => {
    zoom(null);
    drawings.find(chart => chart.getBoundingClientRect().width)?.focus();
  });
  figures.push({end: plotOf(drawings[0]).end, redraw});
}

if (figures.length) {
  const hint = document.createElement("p");
  hint.className = "quiet hint";
  hint.textContent = "Drag across a curve to see its steps larger, in all curves; a double click shows all. By keyboard: arrows, +, − and Escape.";
  document.querySelector("figure[data-values]").before(hint);
  const kept = /^#steps=(\d{1,12})-(\d{1,12})$/.exec(location.hash);
  if (kept) zoom([Number(kept[1]), Number(kept[2])]);
}
