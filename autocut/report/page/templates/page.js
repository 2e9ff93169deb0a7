"use strict";
// Sorts and filters the table at once, then unpacks Plotly and draws. Text of the study reaches the page as text only.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);

  // ---- the table ----
  const table = byId("trials");
  const rows = table ? [...table.tBodies[0].rows] : [];

  function filter() {
    const groups = byId("group").value;
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const inGroup = !groups || groups === row.dataset.group || (groups === "front baselines" && groups.split(" ").includes(row.dataset.group));
      const text = row.cells[0].textContent + " " + row.cells[1].textContent.toLowerCase();
      row.hidden = !(inGroup && words.every((word) => text.includes(word)));
      shown += !row.hidden;
    }
    byId("count").textContent = `${shown} of ${rows.length} ${rows.length === 1 ? "trial" : "trials"}`;
  }

  function sort(column, header) {
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => {
      const value = row.cells[column].dataset.value;
      return value === undefined ? row.cells[column].textContent : value === "" ? null : Number(value);
    };
    const keyed = rows.map((row) => [key(row), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "number" ? a - b : a.localeCompare(b);
      return descending ? -order : order;
    });
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  }

  function find(trial) {
    const row = rows.find((one) => one.dataset.trial === String(trial));
    if (!row) return;
    if (row.hidden) { byId("group").value = ""; byId("find").value = ""; filter(); }
    rows.forEach((one) => one.classList.toggle("found", one === row));
    row.scrollIntoView({ block: "center" });
  }

  if (table) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent;
      button.addEventListener("click", () => sort(column, header));
      header.replaceChildren(button);
    });
    byId("group").addEventListener("change", filter);
    byId("find").addEventListener("input", filter);
    byId("find").form.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }

  // ---- the plots ----
  const TRACES = [
    { name: "beaten", groups: ["beaten"], split: "v", colour: "--beaten", symbol: "circle", size: 6 },
    { name: "outside the limits or refused", groups: ["outside the limits", "refused"], split: "v", colour: "--beaten", symbol: "x-thin-open", size: 7 },
    { name: "baselines", groups: ["baselines"], split: "v", colour: "--baseline", symbol: "diamond", size: 9 },
    { name: "front, validation", groups: ["front"], split: "v", colour: "--accent", symbol: "circle-open", size: 10 },
    { name: "front, test", groups: ["front"], split: "t", colour: "--accent", symbol: "circle", size: 9, bars: true },
  ];
  const hidden = new Set();
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  // Plotly reads a little HTML in labels.
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const settings = { displayModeBar: false, responsive: true, showTips: false };

  function layout(x, y, height) {
    const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zeroline: false, automargin: true, fixedrange: matchMedia("(pointer: coarse)").matches };
    return {
      height, margin: { l: 56, r: 12, t: 12, b: 48 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--quiet") },
      hoverlabel: { bgcolor: colour("--paper"), bordercolor: colour("--quiet"), font: { color: colour("--ink") }, align: "left" },
      xaxis: { ...axis, title: { text: x } }, yaxis: { ...axis, title: { text: y } },
    };
  }

  function scale(axis, values) {
    const low = Math.min(...values), high = Math.max(...values);
    if (!(low > 0 && high > 8 * low)) return;
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const digit of [1, 2, 5]) ticks.push(Number(`${digit}e${power}`));
    const inside = ticks.filter((tick) => tick >= low / 1.5 && tick <= high * 1.2);
    Object.assign(axis, { type: "log", tickvals: inside, ticktext: inside.map(String) });
  }

  function trace(kind, cost) {
    const points = data.points.filter((point) => kind.groups.includes(point.g) && point[kind.split] && point[kind.split][cost]);
    points.sort((a, b) => a[kind.split][cost][0] - b[kind.split][cost][0]);
    const at = (name, index) => points.map((point) => point[kind.split][name][index]);
    const spread = (name) => ({
      type: "data", symmetric: false, color: colour(kind.colour), thickness: 1, width: 3, visible: Boolean(kind.bars),
      array: points.map((point) => point[kind.split][name][2] - point[kind.split][name][0]),
      arrayminus: points.map((point) => point[kind.split][name][0] - point[kind.split][name][1]),
    });
    return {
      name: kind.name, x: at(cost, 0), y: at("accuracy", 0), customdata: points.map((point) => point.id), hoverinfo: "text",
      hovertext: points.map((point) => hover(point, kind, cost)), mode: "markers", visible: !hidden.has(kind.name),
      error_x: spread(cost), error_y: spread("accuracy"),
      marker: { color: colour(kind.colour), symbol: kind.symbol, size: kind.size, line: { width: 2, color: colour(kind.colour) } },
    };
  }

  // The best accuracy up to each cost. With more than two objectives some points of the front lie below it.
  function stairs(cost) {
    const ends = [];
    for (const [x, y] of data.points.filter((point) => point.g === "front" && point.v[cost]).map((point) => [point.v[cost][0], point.v.accuracy[0]]).sort((a, b) => a[0] - b[0]))
      if (!ends.length || y > ends.at(-1)[1]) ends.push([x, y]);
    return {
      x: ends.map(([x]) => x), y: ends.map(([, y]) => y), mode: "lines", hoverinfo: "skip", visible: !hidden.has("front, validation"),
      line: { color: colour("--accent"), width: 1, dash: "dot", shape: "hv" },
    };
  }

  function hover(point, kind, cost) {
    const digits = (value) => Number(value.toPrecision(4)).toString();
    const told = (name, spread) => `${name} ${digits(spread[0])} (${digits(spread[1])} to ${digits(spread[2])})`;
    const words = point.r.match(/.{1,48}(?:\s|$)|\S{48}|\S+/g) || [point.r];
    const numbers = point[kind.split];
    return [
      `<b>trial ${point.id}</b>, ${kind.split === "t" ? "test" : "validation"}`, ...words.map((part) => plain(part.trim())),
      told("accuracy", numbers.accuracy), plain(told(data.axes[cost], numbers[cost])), ...(point.n ? [plain(point.n)] : []),
    ].join("<br>");
  }

  // The names of the picks. Each stands where it hides least: no other name, few points, of the front none if that can be.
  function labels(cost) {
    const { xaxis, yaxis } = byId("front-plot")._fullLayout;
    const pixels = ([x], [y]) => [xaxis.d2p(x), yaxis.d2p(y)];
    const dots = data.points.flatMap((point) => ["v", "t"].filter((split) => point[split] && point[split][cost]).map(
      (split) => [...pixels(point[split][cost], point[split].accuracy), point.g === "front" ? 5 : 1],
    ));
    const taken = [];
    const hidden = ([left, top, right, bottom]) =>
      dots.reduce((sum, [x, y, weight]) => sum + (x > left - 6 && x < right + 6 && y > top - 6 && y < bottom + 6 ? weight : 0), 0)
      + 100 * taken.filter((box) => box[0] < right && left < box[2] && box[1] < bottom && top < box[3]).length
      + (right > xaxis._length || top < 0 || bottom > yaxis._length ? 50 : 0);
    const named = data.picks.map(([trial, name]) => [data.points.find((point) => point.id === trial), name]);
    return named.filter(([point]) => point && point.v && point.v[cost]).map(([point, name]) => {
      const text = `${name}: ${point.id}`, [x, y] = pixels(point.v[cost], point.v.accuracy);
      const places = [34, 52, -34, 76, 104, 134, 166, 200].flatMap((ay) => [44, 20, 80].map((ax) => {
        const box = [x + ax, y + ay - 10, x + ax + 7.5 * text.length + 6, y + ay + 10];
        return { ax, ay, box, cost: hidden(box) + Math.hypot(ax, ay) / 500 };
      }));
      const best = places.reduce((one, other) => (other.cost < one.cost ? other : one));
      taken.push(best.box);
      return {
        x: xaxis.type === "log" ? Math.log10(point.v[cost][0]) : point.v[cost][0], y: point.v.accuracy[0], text: plain(text), ax: best.ax, ay: best.ay,
        arrowcolor: colour("--quiet"), arrowwidth: 1, arrowhead: 0, standoff: 6, xanchor: "left",
        font: { color: colour("--ink"), size: 13 }, bgcolor: colour("--paper"), borderpad: 2,
      };
    });
  }

  function drawFront(plotly) {
    const cost = byId("cost-axis").value;
    const isNarrow = innerWidth < 640;  // there a long title takes two lines
    const shape = layout(isNarrow ? data.axes[cost].replace(", ", ",<br>") : data.axes[cost], data.metric, isNarrow ? 360 : 440);
    const seen = data.points.filter((point) => point.v);
    scale(shape.xaxis, seen.flatMap((point) => (point.v[cost] ? [point.v[cost][0]] : [])));
    const [low, high] = data.view || [];
    if (data.view) shape.yaxis.range = [low, high];
    plotly.react("front-plot", [stairs(cost), ...TRACES.map((kind) => trace(kind, cost))], shape, settings);
    plotly.relayout("front-plot", { annotations: labels(cost) });
  }

  function drawGrowth(plotly) {
    if (!byId("growth-plot") || !data.growth.length) return;
    const line = {
      x: data.growth.map((step) => step[0]), y: data.growth.map((step) => step[1]), text: data.growth.map((step) => `trial ${step[2]}, minute ${step[0]}: ${step[1]}`),
      hoverinfo: "text", mode: "lines+markers", line: { shape: "hv", color: colour("--accent"), width: 2 }, marker: { size: 5 },
    };
    const shape = layout("minutes worked", "hypervolume, share of now", 260);
    shape.yaxis.rangemode = "tozero";
    plotly.react("growth-plot", [line], shape, settings);
  }

  function legend(draw) {
    for (const kind of [...TRACES].reverse()) {
      if (!data.points.some((point) => kind.groups.includes(point.g) && point[kind.split])) continue;
      const label = document.createElement("label"), box = document.createElement("input");
      box.type = "checkbox";
      box.checked = true;
      box.addEventListener("change", () => { box.checked ? hidden.delete(kind.name) : hidden.add(kind.name); draw(); });
      label.append(box, swatch(kind), kind.name);
      byId("traces").append(label);
    }
  }

  function swatch(kind) {
    const shapes = { "circle": "M7 3a4 4 0 1 0 .01 0Z", "circle-open": "M7 3a4 4 0 1 0 .01 0Z", "diamond": "M7 1 13 7 7 13 1 7Z", "x-thin-open": "M3 3 11 11M11 3 3 11" };
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.setAttribute("viewBox", "0 0 14 14");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", shapes[kind.symbol]);
    path.style.cssText = `stroke:var(${kind.colour});stroke-width:2;fill:${kind.symbol.endsWith("open") ? "none" : `var(${kind.colour})`}`;
    svg.append(path);
    return svg;
  }

  async function unpack() {
    const packed = Uint8Array.from(atob(byId("plotly").textContent), (letter) => letter.charCodeAt(0));
    const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
    byId("plotly").remove();
    return window.Plotly;
  }

  async function start() {
    if (!byId("front-plot")) return;
    let plotly;
    try {
      plotly = await unpack();
    } catch (error) {
      byId("front-plot").textContent = `This browser cannot unpack the plot (${error.message}). The table below has its numbers.`;
      return;
    }
    const draw = () => { drawFront(plotly); drawGrowth(plotly); };
    legend(() => drawFront(plotly));
    byId("cost-axis").addEventListener("change", () => drawFront(plotly));
    draw();
    byId("front-plot").on("plotly_click", (event) => find(event.points[0].customdata));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    const paper = (printing) => () => { root.classList.toggle("printing", printing); draw(); };
    addEventListener("beforeprint", paper(true));
    addEventListener("afterprint", paper(false));
    root.classList.add("drawn");
  }

  // Paper cannot be clicked: what is folded away on a screen is unfolded there, and folded again.
  const folded = [];
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details:not([open])")) { one.open = true; folded.push(one); }
  });
  addEventListener("afterprint", () => { while (folded.length) folded.pop().open = false; });

  // After the first paint: a reader sees the answer and the table before Plotly is unpacked.
  requestAnimationFrame(() => setTimeout(start));
})();
