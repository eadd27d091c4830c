"use strict";
// Bars and a roofline as SVG, as wide as what they stand in.
const Charts = (() => {
  const colour = (side) => `var(--${["XLA", "ours", "torch", "flax", "even"].includes(side) ? side : "other"})`;

  function element(parent, name, attributes = {}, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function canvas(figure, width, height, label) {
    figure.querySelector("svg")?.remove();
    return element(figure, "svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  }

  const short = (text, room) => (text.length * 7.2 <= room ? text : text.slice(0, Math.max(3, Math.floor(room / 7.2) - 1)) + "…");
  const ratio = (value) => (value >= 9.95 ? value.toFixed(0) : value >= 1.95 ? value.toFixed(1) : value.toFixed(2)) + "×";

  // Rows of {name, value, side}; logarithmic, from 1 to the right where the value is above it.
  function bars(figure, rows, label) {
    const width = Math.max(280, figure.clientWidth), narrow = width < 560;
    const names = narrow ? 0 : Math.min(300, width * 0.42), step = narrow ? 36 : 22, right = 48, top = 22;
    const svg = canvas(figure, width, top + step * rows.length + 6, label);
    const values = rows.map((row) => row.value);
    const low = Math.log(Math.min(0.8, ...values)), high = Math.log(Math.max(1.25, ...values));
    const x = (value) => names + 4 + ((Math.log(value) - low) / (high - low)) * (width - names - right - 4);
    const ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100].filter((t) => Math.log(t) >= low && Math.log(t) <= high);
    for (const tick of ticks) {
      element(svg, "line", { x1: x(tick), x2: x(tick), y1: top - 4, y2: top + step * rows.length, class: tick === 1 ? "axis" : "grid" });
      element(svg, "text", { x: x(tick), y: 12, "text-anchor": "middle", class: "quiet" }, `${tick}×`);
    }
    rows.forEach((row, index) => {
      const y = top + index * step, bar = narrow ? y + 18 : y + 4;
      const group = element(svg, "g", { class: "bar", "data-side": row.side });
      element(group, "title", {}, `${row.name}: ${ratio(row.value)}`);
      element(group, "rect", {
        x: Math.min(x(1), x(row.value)), width: Math.max(1.5, Math.abs(x(row.value) - x(1))), y: bar, height: 14, fill: colour(row.side),
      });
      if (narrow) element(group, "text", { x: 0, y: y + 13 }, short(row.name, width));
      else element(group, "text", { x: names - 6, y: y + 15, "text-anchor": "end" }, short(row.name, names - 8));
      element(group, "text", { x: Math.max(x(1), x(row.value)) + 5, y: bar + 11 }, ratio(row.value));
    });
  }

  const large = (value) => (value >= 1e12 ? `${+(value / 1e12).toPrecision(3)} T` : `${+(value / 1e9).toPrecision(3)} G`);

  // Operations per byte against operations per second under the two ceilings; both axes logarithmic.
  function roofline(figure, points, roof, label) {
    const width = Math.max(280, figure.clientWidth), height = Math.min(420, Math.max(300, width * 0.7));
    const svg = canvas(figure, width, height, label), left = 54, bottom = 40, top = 26;
    const { bytes_per_second: bandwidth, flops_per_second: peak } = roof, ridge = peak / bandwidth;
    const across = points.map((p) => p[2]), up = points.map((p) => p[3]);
    const span = (values) => [Math.log10(Math.min(...values)) - 0.2, Math.log10(Math.max(...values)) + 0.2];
    const [x0, x1] = span([...across, ridge / 3, ridge * 3]), [y0, y1] = span([...up, peak]);
    const x = (value) => left + ((Math.log10(value) - x0) / (x1 - x0)) * (width - left - 12);
    const y = (value) => height - bottom - ((Math.log10(value) - y0) / (y1 - y0)) * (height - bottom - top);
    for (let power = Math.ceil(x0); power <= x1; power++) {
      element(svg, "line", { x1: x(10 ** power), x2: x(10 ** power), y1: top, y2: height - bottom, class: "grid" });
      element(svg, "text", { x: x(10 ** power), y: height - bottom + 15, "text-anchor": "middle", class: "quiet" }, `${+(10 ** power).toPrecision(1)}`);
    }
    for (let power = Math.ceil(y0); power <= y1; power++) {
      element(svg, "line", { x1: left, x2: width - 12, y1: y(10 ** power), y2: y(10 ** power), class: "grid" });
      element(svg, "text", { x: left - 5, y: y(10 ** power) + 4, "text-anchor": "end", class: "quiet" }, large(10 ** power));
    }
    const from = Math.max(10 ** x0, 10 ** y0 / bandwidth);
    const roofs = [[from, from * bandwidth], [ridge, peak], [10 ** x1, peak]].map(([a, b]) => `${x(a)},${y(b)}`).join(" ");
    element(svg, "polyline", { points: roofs, fill: "none", class: "axis", "stroke-width": 1.5 });
    element(svg, "text", { x: width - 14, y: y(peak) - 6, "text-anchor": "end" }, `${large(peak)}flop/s, ${large(bandwidth)}B/s`);
    element(svg, "text", { x: width - 14, y: height - 8, "text-anchor": "end", class: "quiet" }, "operations per byte");
    element(svg, "text", { x: 0, y: 12, class: "quiet" }, "operations per second");
    for (const [name, side, a, b] of points) {
      const at = { class: "point", "data-side": side, fill: colour(side), "fill-opacity": 0.85 };
      const shape = side === "ours"
        ? element(svg, "path", { ...at, d: `M${x(a)} ${y(b) - 6}l6 6l-6 6l-6 -6z` })
        : element(svg, "circle", { ...at, cx: x(a), cy: y(b), r: 5 });
      element(shape, "title", {}, `${name}, ${side}: ${+a.toPrecision(3)} operations per byte, ${large(b)}flop/s`);
    }
  }
  return { bars, roofline, colour };
})();
