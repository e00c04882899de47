// Reads values off the curves: the pointer, a finger, or the arrow keys choose a step; its values are written below.
"use strict";
for (const figure of document.querySelectorAll("figure[data-values]")) {
  const series = JSON.parse(figure.dataset.values);
  const readout = figure.querySelector(".readout");
  const steps = [...new Set(series.flatMap(one => one.points.map(point => point[0])))].sort((a, b) => a - b);
  if (!steps.length) continue;
  let chosen = -1;

  function nearest(points, step) {
    let low = 0, high = points.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle] < step) low = middle + 1; else high = middle;
    }
    return low > 0 && step - points[low - 1] <= points[low] - step ? low - 1 : low;
  }

  function show(index) {
    chosen = Math.min(Math.max(index, 0), steps.length - 1);
    const step = steps[chosen];
    const told = series.filter(one => one.points.length).map(one => {
      const [at, text] = one.points[nearest(one.points.map(point => point[0]), step)];
      return `${one.name} ${text}` + (at === step ? "" : ` (step ${at.toLocaleString("en")})`);
    });
    readout.textContent = [`step ${step.toLocaleString("en")}`, ...told].join(" · ");
    for (const chart of figure.querySelectorAll(".chart")) {
      const [left, right, top, bottom, end] = chart.dataset.plot.split(" ").map(Number);
      const x = left + (right - left) * step / end;
      let line = chart.querySelector(".pointer");
      if (!line) {
        line = document.createElementNS("http://www.w3.org/2000/svg", "line");
        line.setAttribute("class", "pointer");
        chart.append(line);
      }
      for (const [name, value] of [["x1", x], ["x2", x], ["y1", top], ["y2", bottom]]) line.setAttribute(name, value);
    }
  }

  for (const chart of figure.querySelectorAll(".chart")) {
    const at = event => {
      const box = chart.getBoundingClientRect();
      const [left, right, , , end] = chart.dataset.plot.split(" ").map(Number);
      const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
      show(nearest(steps, (x - left) / (right - left) * end));
    };
    chart.addEventListener("pointermove", at);
    chart.addEventListener("pointerdown", at);
    chart.setAttribute("tabindex", "0");
    chart.addEventListener("keydown", event => {
      const jump = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity}[event.key];
      if (jump === undefined) return;
      event.preventDefault();
      show(chosen < 0 && jump > 0 && jump < Infinity ? 0 : chosen + jump);
    });
  }
}
