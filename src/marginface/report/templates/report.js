"use strict";
// Hovering, the threshold slider and saving of figures. The page reads and prints without it.
const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const percent = (value) => (100 * value).toFixed(value < 0.001 && value > 0 ? 3 : 2) + "%";
const show = (value, unit) => unit === "percent" ? percent(value) : unit === "rate" ? (value >= 0.01 ? percent(value) : value.toExponential(2)) : String(+value.toPrecision(4));
document.body.classList.add("live");

// hovering: the nearest point of any curve, also by a tap and by arrow keys
for (const figure of document.querySelectorAll("figure.chart")) {
  const chart = DATA.charts[figure.id], svg = figure.querySelector("svg"), tip = figure.querySelector(".tip"), cursor = figure.querySelector(".cursor");
  let at = [0, 0];
  const hide = () => { tip.hidden = true; cursor.setAttribute("visibility", "hidden"); };
  const point = (curve, index) => {
    at = [curve, index];
    const one = chart.curves[curve], [x, y] = one.points[index], [a, b] = one.values[index], box = svg.viewBox.baseVal;
    cursor.setAttribute("class", "cursor " + one.style);
    cursor.setAttribute("visibility", "visible");
    const line = cursor.querySelector("line"), dot = cursor.querySelector("circle");
    line.setAttribute("x1", x); line.setAttribute("x2", x);
    dot.setAttribute("cx", x); dot.setAttribute("cy", y);
    tip.replaceChildren();
    const title = document.createElement("b");
    title.textContent = one.label;
    tip.append(title, `${chart.y.label || "Value"} ${show(b, chart.y.unit)}`, document.createElement("br"), `${chart.x.label} ${show(a, chart.x.unit)}`);
    if (one.notes[index]) tip.append(document.createElement("br"), one.notes[index]);
    tip.hidden = false;
    const scale = svg.clientWidth / box.width, left = x * scale, top = y * scale;
    tip.style.left = Math.max(0, Math.min(svg.clientWidth - tip.offsetWidth, left > svg.clientWidth / 2 ? left - tip.offsetWidth - 12 : left + 12)) + "px";
    tip.style.top = Math.max(0, Math.min(svg.clientHeight - tip.offsetHeight, top + 12)) + "px";
  };
  const nearest = (event) => {
    const frame = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / frame.width;
    const x = (event.clientX - frame.left) * scale, y = (event.clientY - frame.top) * scale;
    let best = [0, 0], least = Infinity;
    chart.curves.forEach((one, curve) => one.points.forEach(([px, py], index) => {
      const gap = (px - x) ** 2 + (py - y) ** 2;
      if (gap < least) { least = gap; best = [curve, index]; }
    }));
    point(...best);
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); }); // a finger leaves at once
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const along = { ArrowRight: 1, ArrowLeft: -1 }[event.key], across = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (event.key === "Escape") return hide();
    if (!along && !across) return;
    event.preventDefault();
    const count = chart.curves.length, curve = tip.hidden ? count - 1 : (at[0] + (across || 0) + count) % count;
    const last = chart.curves[curve].points.length - 1;
    point(curve, Math.max(0, Math.min(last, tip.hidden ? 0 : at[1] + (along || 0))));
  });
  for (const button of figure.querySelectorAll("[data-save]")) button.addEventListener("click", () => save(figure, chart, button.dataset.save));
}

// the threshold slider
for (const place of document.querySelectorAll(".explore")) {
  const name = place.dataset.benchmark, slider = place.querySelector(".cut"), select = place.querySelector(".model");
  const histograms = [...place.querySelectorAll("figure.chart")];
  let model = histograms.length - 1;
  const draw = () => {
    const table = DATA.thresholds[`${name}-${model}`], cut = +slider.value;
    const value = table.low + (table.high - table.low) * cut / (table.trueAccepts.length - 1);
    const tp = table.trueAccepts[cut], fp = table.falseAccepts[cut], fn = table.genuines - tp, tn = table.impostors - fp;
    place.querySelector("output").textContent = value.toFixed(3);
    for (const [cell, count] of Object.entries({ tp, fp, fn, tn })) place.querySelector(`[data-cell=${cell}]`).textContent = count.toLocaleString("en");
    const rates = { accuracy: (tp + tn) / (table.genuines + table.impostors), fmr: fp / table.impostors, fnmr: fn / table.genuines };
    for (const [rate, share] of Object.entries(rates)) place.querySelector(`[data-rate=${rate}]`).textContent = percent(share);
    markThreshold(histograms[model], cut / (table.trueAccepts.length - 1));
    markRates(document.getElementById(`${name}-roc`), model, rates.fmr, 1 - rates.fnmr);
    markRates(document.getElementById(`${name}-det`), model, rates.fmr, rates.fnmr);
  };
  const choose = () => {
    if (select) model = +select.value;
    histograms.forEach((figure, index) => { figure.hidden = index !== model; });
    slider.value = DATA.thresholds[`${name}-${model}`].start;
    draw();
  };
  slider.addEventListener("input", draw);
  if (select) select.addEventListener("change", choose);
  choose();
}

function markThreshold(figure, fraction) {
  const base = figure.querySelector(".base"), left = +base.getAttribute("x1"), right = +base.getAttribute("x2");
  const line = document.createElementNS(SVG, "line"), x = left + (right - left) * fraction;
  const rule = figure.querySelector(".cursor line");
  for (const [key, value] of Object.entries({ x1: x, x2: x, y1: rule.getAttribute("y1"), y2: rule.getAttribute("y2") })) line.setAttribute(key, value);
  figure.querySelector(".marks").replaceChildren(line);
}

function markRates(figure, model, a, b) {
  const chart = DATA.charts[figure.id], dot = document.createElementNS(SVG, "circle");
  const at = ([value, axis]) => {
    const low = axis.log ? Math.log10(axis.low) : axis.low, high = axis.log ? Math.log10(axis.high) : axis.high;
    const place = axis.log ? Math.log10(Math.max(value, axis.low)) : value;
    return Math.max(0, Math.min(1, (place - low) / (high - low)));
  };
  const base = figure.querySelector(".base"), rule = figure.querySelector(".cursor line");
  const left = +base.getAttribute("x1"), right = +base.getAttribute("x2"), top = +rule.getAttribute("y1"), bottom = +rule.getAttribute("y2");
  dot.setAttribute("cx", left + (right - left) * at([a, chart.x]));
  dot.setAttribute("cy", bottom - (bottom - top) * at([b, chart.y]));
  dot.setAttribute("r", 5);
  dot.setAttribute("class", chart.curves[model].style);
  figure.querySelector(".marks").replaceChildren(dot);
}

// saving: styles are written into a copy of the drawing, so that it stands alone
function save(figure, chart, kind) {
  if (kind === "csv") {
    const quote = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const lines = [["curve", chart.x.label, chart.y.label || "value"].map(quote).join(",")];
    for (const one of chart.curves) for (const [a, b] of one.values) lines.push([quote(one.label), a, b].join(","));
    return download(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }), `${figure.id}.csv`);
  }
  const svg = figure.querySelector("svg"), copy = svg.cloneNode(true), box = svg.viewBox.baseVal;
  const originals = svg.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((element, index) => {
    const style = getComputedStyle(originals[index]);
    for (const key of ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "opacity", "font-size", "font-family"]) element.setAttribute(key, style.getPropertyValue(key));
  });
  copy.querySelector(".cursor").remove();
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", box.width);
  copy.setAttribute("height", box.height);
  const back = document.createElementNS(SVG, "rect");
  back.setAttribute("width", box.width); back.setAttribute("height", box.height);
  back.setAttribute("fill", getComputedStyle(document.documentElement).getPropertyValue("--surface"));
  copy.prepend(back);
  const text = new XMLSerializer().serializeToString(copy), blob = new Blob([text], { type: "image/svg+xml" });
  if (kind === "svg") return download(blob, `${figure.id}.svg`);
  const image = new Image(), url = URL.createObjectURL(blob), factor = 3;
  image.onload = () => {
    const canvas = document.createElement("canvas");
    canvas.width = box.width * factor; canvas.height = box.height * factor;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(url);
    canvas.toBlob((png) => download(png, `${figure.id}.png`), "image/png");
  };
  image.src = url;
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
