// Tabs, and per section a table that is sorted and filtered, with the charts of the rows that it shows.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const BARS = 30; // shown unless all are asked for
  let count = 0;

  function make(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function shown(value, column) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "number") return value;
    if (column.digits === 0) return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
    if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(1);
    return value.toLocaleString("en-US", { maximumSignificantDigits: column.digits ?? 3, minimumSignificantDigits: column.digits ?? 1 });
  }

  // Empty cells last, whichever way; "over" above all numbers.
  function compare(a, b, numbers, way) {
    const empty = (value) => value === null || value === undefined || value === "";
    if (empty(a) || empty(b)) return empty(a) - empty(b);
    const number = (value) => (typeof value === "number" ? value : Infinity);
    if (numbers) return number(a) === number(b) ? 0 : way * (number(a) < number(b) ? -1 : 1);
    return way * String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function choice(label, values) {
    const select = make("select", {}, make("option", { value: "" }, "all"), ...values.map((value) => make("option", { value }, value)));
    return [make("label", {}, label, select), select];
  }

  function table(section, panel) {
    const index = Object.fromEntries(section.columns.map((column, at) => [column.name, at]));
    const distinct = (name) => [...new Set(section.rows.map((row) => row[index[name]]).filter(Boolean))].sort();
    const sort = { at: null, way: 1 };
    let all = false;

    const search = make("input", { type: "search", placeholder: "part of any name", id: `search-${++count}` });
    const controls = make("div", { class: "controls" }, make("label", {}, "find", search)), selects = [];
    for (const [label, name] of [["operator or model", section.group], ["part", "part"], ["better", section.winner]]) {
      if (!name || !(name in index) || distinct(name).length < 2) continue;
      const [wrapped, select] = choice(label, distinct(name));
      controls.append(wrapped);
      selects.push([select, index[name]]);
    }
    const heads = section.columns.map((column, at) => {
      const button = make("button", { type: "button" }, column.name === "of" ? "operator or model" : column.name);
      const head = make("th", { scope: "col", "aria-sort": "none", class: column.kind }, button);
      button.addEventListener("click", () => {
        // A first click brings the largest number, or the first name, to the top.
        sort.way = sort.at === at ? -sort.way : column.kind === "number" ? -1 : 1;
        sort.at = at;
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", sort.way > 0 ? "ascending" : "descending");
        draw();
      });
      return head;
    });
    const body = make("tbody"), said = make("p", { class: "count", "aria-live": "polite" });
    const charts = make("div", { class: section.bars && section.roofline ? "charts two" : "charts" });
    const more = make("button", { type: "button", class: "more" });
    more.addEventListener("click", () => { all = !all; draw(); });
    const barred = section.bars && make("figure", { class: "bars" }, make("figcaption", {}, section.bars.label));
    const roofed = section.roofline && make("figure", { class: "roofline" }, make("figcaption", {}, `Roofline, ${section.how}`));
    if (barred) charts.append(make("div", {}, barred, more));
    if (roofed) charts.append(roofed);

    function rows() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const kept = section.rows.filter((row) => {
        const text = row.filter((cell) => typeof cell === "string").join(" ").toLowerCase();
        return words.every((word) => text.includes(word)) && selects.every(([select, at]) => !select.value || row[at] === select.value);
      });
      if (sort.at === null) return kept;
      return kept.sort((a, b) => compare(a[sort.at], b[sort.at], section.columns[sort.at].kind === "number", sort.way));
    }

    function cell(value, column) {
      const made = make("td", { class: column.kind }, shown(value, column));
      if (column.kind === "side" && value) made.style.setProperty("--side", Charts.colour(value));
      return made;
    }

    function draw() {
      const found = rows();
      body.replaceChildren(...found.map((row) => make("tr", {}, ...row.map((value, at) => cell(value, section.columns[at])))));
      said.textContent = `${found.length} of ${section.rows.length} rows`;
      if (!panel.hidden) drawCharts(found);
    }

    function drawCharts(found) {
      if (barred) {
        const at = index[section.bars.column], winner = index[section.winner];
        const all_bars = found.filter((row) => row[at] > 0).map((row) => ({ name: row[0], value: row[at], side: row[winner] || "even" }));
        if (sort.at === null) all_bars.sort((a, b) => b.value - a.value);
        const some = all ? all_bars : all_bars.slice(0, BARS);
        Charts.bars(barred, some, section.bars.label);
        more.hidden = all_bars.length <= BARS;
        more.textContent = all ? `show ${BARS} bars` : `show all ${all_bars.length} bars`;
      }
      if (roofed) {
        const names = new Set(found.map((row) => row[0]));
        const points = section.roofline.points.filter((point) => names.has(point[0]));
        Charts.roofline(roofed, points, section.roofline, `Roofline, ${section.how}`);
      }
    }

    search.addEventListener("input", draw);
    selects.forEach(([select]) => select.addEventListener("change", draw));
    const title = make("h3", {}, section.title, make("span", { class: "how" }, data.how[section.how]));
    const grid = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body);
    const scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${section.title}, ${section.how}` }, grid);
    const lines = section.where.map((line) => make("p", { class: "where" }, line));
    panel.append(make("section", { class: `figures ${section.how}` }, title, make("p", { class: "about" }, section.about), ...lines, controls, said, scroll, charts));
    return draw;
  }

  const tabs = document.getElementById("tabs"), panels = document.getElementById("panels"), made = [];
  for (const device of data.devices) {
    const attributes = { role: "tab", id: `tab-${device.id}`, "aria-controls": `panel-${device.id}`, type: "button" };
    const tab = make("button", attributes, device.name);
    const panel = make("div", { role: "tabpanel", id: `panel-${device.id}`, "aria-labelledby": `tab-${device.id}` });
    panel.hidden = true;
    tabs.append(tab);
    panels.append(panel);
    made.push({ device, tab, panel, draws: device.sections.map((section) => table(section, panel)) });
    tab.addEventListener("click", () => choose(device.id, true));
  }

  function choose(id, remember) {
    const chosen = made.some((one) => one.device.id === id) ? id : made[0]?.device.id;
    for (const { device, tab, panel, draws } of made) {
      const here = device.id === chosen;
      tab.setAttribute("aria-selected", here);
      tab.tabIndex = here ? 0 : -1;
      panel.hidden = !here;
      if (here) draws.forEach((draw) => draw());
    }
    if (remember) history.replaceState(null, "", `#${chosen}`);
  }

  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = made.findIndex((one) => one.tab === document.activeElement);
    const next = made[(at + step + made.length) % made.length];
    choose(next.device.id, true);
    next.tab.focus();
  });
  window.addEventListener("hashchange", () => choose(location.hash.slice(1), false));
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (width === window.innerWidth) return; // a phone's address bar that comes and goes
    width = window.innerWidth;
    made.filter(({ panel }) => !panel.hidden).forEach(({ draws }) => draws.forEach((draw) => draw()));
  });
  choose(location.hash.slice(1), false);
})();
