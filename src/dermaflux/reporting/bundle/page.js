// Charts, sortable tables, image filters and links of the report. Without it the page is complete:
// tables, static figures and every number are in the HTML.

const root = document.documentElement;
const settled = { charts: false, tables: false };
window.reportSettled = settled;

async function unpack(id) {
  const packed = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function colour(name) {
  return getComputedStyle(root).getPropertyValue(name).trim();
}

// --- Charts ---

function themed(chart) {
  const ink = colour("--ink"), line = colour("--line"), rule = colour("--rule");
  const axis = { gridcolor: line, linecolor: rule, zerolinecolor: rule, fixedrange: true };
  const layout = {
    ...chart.layout,
    height: chart.height,
    margin: { l: 8, r: 12, t: 28, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
    xaxis: { ...axis, ...chart.layout.xaxis },
    yaxis: { ...axis, ...chart.layout.yaxis },
    legend: { bgcolor: "rgba(0,0,0,0)", ...chart.layout.legend },
    hoverlabel: { bgcolor: colour("--card"), bordercolor: rule, font: { color: ink } },
    hovermode: "closest",
  };
  for (const shape of layout.shapes ?? []) shape.line.color = ink;
  const data = chart.data.map((trace) =>
    trace.meta === "reference" ? { ...trace, line: { ...trace.line, color: colour("--soft") } } : trace);
  return [data, layout, { displayModeBar: false, responsive: true }];
}

async function charts() {
  const figures = JSON.parse(document.getElementById("charts").textContent);
  const places = [...document.querySelectorAll(".chart[data-chart]")];
  if (!places.length) return;
  const script = document.createElement("script");
  script.textContent = await unpack("plotly");
  document.head.append(script);
  root.classList.add("live");
  const drawn = new Map();
  const draw = (place) => {
    const chart = figures[place.dataset.chart];
    place.style.minHeight = `${chart.height}px`;
    drawn.set(place, chart);
    return window.Plotly.react(place.querySelector(".plot"), ...themed(chart));
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      draw(target);
    }
  }, { rootMargin: "400px" });
  places.forEach((place) => watcher.observe(place));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => [...drawn.keys()].forEach(draw));
  window.addEventListener("beforeprint", () => places.filter((place) =>
    !drawn.has(place) && !place.querySelector(".static") && place.clientWidth).forEach(draw));
}

// --- Tables ---

const NUMBER = /^[<>~]?\s*[+−-]?[\d,]+(\.\d+)?/;
const LEAST = "-1e308"; // where a cell of a numeric column holds no number

function ownText(cell) {
  const holder = cell.querySelector(":scope > a.n, :scope > i") ?? cell;
  const text = [...holder.childNodes].find((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  return text ? text.data.trim() : "";
}

function numeric(text) {
  const found = text.match(NUMBER);
  return found ? Number(found[0].replace(/[<>~\s,]/g, "").replace("−", "-")) : null;
}

function giveOrder(table) {
  const rows = [...table.tBodies[0].rows];
  for (let column = 0; column < (rows[0]?.cells.length ?? 0); column += 1) {
    const cells = rows.map((row) => row.cells[column]).filter(Boolean);
    if (cells[0]?.classList.contains("text")) continue;
    const values = cells.map((cell) => numeric(ownText(cell)));
    if (values.every((value) => value === null)) continue;
    cells.forEach((cell, index) => { cell.dataset.order = values[index] ?? LEAST; });
  }
}

async function tables() {
  const places = [...document.querySelectorAll("table.sort")].filter((table) => table.tBodies[0]?.rows.length > 1);
  if (!places.length) return;
  const source = new Blob([await unpack("datatables")], { type: "text/javascript" });
  const address = URL.createObjectURL(source);
  const { ITable } = await import(address);
  URL.revokeObjectURL(address);
  for (const table of places) {
    giveOrder(table);
    const many = table.tBodies[0].rows.length > 6;
    new ITable(table, {
      paging: false, info: false, order: [], autoWidth: false,
      layout: { topStart: null, topEnd: many ? "search" : null, bottomStart: null, bottomEnd: null },
      language: { search: "Filter rows", zeroRecords: "No row matches." },
    });
  }
}

// --- Every number of a row leads to the run of its first one ---

function link() {
  for (const row of document.querySelectorAll("tbody tr")) {
    const first = row.querySelector("a.n");
    const address = first?.getAttribute("href") ?? row.closest("table").dataset.run;
    if (!address) continue;
    for (const cell of row.querySelectorAll("td")) {
      const text = [...cell.childNodes].find((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
      if (!text || cell.classList.contains("text") || numeric(text.data.trim()) === null) continue;
      const anchor = document.createElement("a");
      anchor.className = "n";
      anchor.href = address;
      if (first) anchor.tabIndex = -1; // one stop of the Tab key per row
      text.replaceWith(anchor);
      anchor.append(text);
    }
  }
}

// --- Images by class, tone, scale and verdict ---

function filters() {
  const bar = document.querySelector(".filters");
  if (!bar) return;
  const selects = [...bar.querySelectorAll("select")];
  const tiles = [...document.querySelectorAll(".tile")];
  const apply = () => {
    const wanted = selects.filter((select) => select.value);
    for (const tile of tiles) {
      // A real image has no verdict: it stays beside the synthetic ones that have the wanted one.
      tile.hidden = !wanted.every((select) => tile.dataset[select.dataset.filter] === select.value
        || (select.dataset.filter === "verdict" && select.value !== "real" && tile.dataset.verdict === "real"));
    }
    const shown = tiles.filter((tile) => !tile.hidden);
    bar.querySelector("output").textContent = `${shown.length} of ${tiles.length} images shown`;
  };
  selects.forEach((select) => select.addEventListener("change", apply));
  bar.hidden = false;
  apply();
}

// --- Folded parts: opened for print, and when a link leads into one ---

function folds() {
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((each) => { each.open = true; });
  });
  window.addEventListener("afterprint", () => opened.forEach((each) => { each.open = false; }));
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    for (let fold = target?.closest?.("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    target?.scrollIntoView?.();
  };
  window.addEventListener("hashchange", reveal);
  if (location.hash) reveal();
}

// What scrolls sideways can be reached by the keyboard.
function scrollers() {
  for (const each of document.querySelectorAll(".scroll, nav ul")) {
    if (each.scrollWidth > each.clientWidth) each.tabIndex = 0;
  }
}

folds();
link();
filters();
await Promise.allSettled([
  charts().finally(() => { settled.charts = true; }),
  tables().finally(() => { settled.tables = true; }),
]).then((results) => results.filter((each) => each.status === "rejected")
  .forEach((each) => console.error("report:", each.reason)));
scrollers();
window.addEventListener("resize", scrollers);
