"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const UNIT = 1e8; // Units of a drawing in one width of the world: 0.4 m at the equator.
  const EARTH_M = 40075016.686;
  const SPLITS = { train: "#0072b2", validation: "#e69f00", test: "#cc79a7", buffer: "#9aa5ad", none: "#c9d1d6" };
  const GREY = "#a9b4ba";
  const DOT_PX = 16;
  const OUTLINES_PX = 46;
  const byId = (id) => document.getElementById(id);
  const datasets = JSON.parse(byId("data").textContent).datasets;
  const map = byId("map");
  const state = { chosen: null, shown: datasets, x: 0.5, y: 0.5, scale: 512 };

  // Elements are made of text and attributes alone, never of markup.
  function make(name, attributes, ...children) {
    const element = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (key === "style") Object.assign(element.style, value);
      else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  }
  const colour = (text) => (/^#[0-9a-f]{6}$/i.test(text || "") ? text : GREY);
  const count = (n) => String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many || one + "s"}`;
  function size(bytes) {
    for (const [unit, name] of [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"]]) if (bytes >= unit) return `${(bytes / unit).toFixed(1)} ${name}`;
    return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  }

  // Web Mercator, the world being one wide.
  const toX = (lon) => lon / 360 + 0.5;
  function toY(lat) {
    const sine = Math.sin((Math.max(-85.05, Math.min(85.05, lat)) * Math.PI) / 180);
    return 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI);
  }
  const toLon = (x) => (x - 0.5) * 360;
  const toLat = (y) => (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;

  // Footprints

  function rings(geometry) {
    if (!geometry) return [];
    if (geometry.type === "Polygon") return geometry.coordinates;
    if (geometry.type === "MultiPolygon") return geometry.coordinates.flat();
    if (geometry.type === "GeometryCollection") return (geometry.geometries || []).flatMap(rings);
    return [];
  }
  function pathOf(lists, origin) {
    return lists.map((ring) => {
      const points = ring.map(([lon, lat]) => `${((toX(lon) - origin[0]) * UNIT).toFixed(1)} ${((toY(lat) - origin[1]) * UNIT).toFixed(1)}`);
      return points.length ? `M${points.join("L")}Z` : "";
    }).join("");
  }
  for (const dataset of datasets) {
    const lists = rings(dataset.geometry);
    const points = lists.flat();
    if (!points.length) continue;
    const xs = points.map((p) => toX(p[0])), ys = points.map((p) => toY(p[1]));
    const least = (values) => values.reduce((a, b) => Math.min(a, b)), most = (values) => values.reduce((a, b) => Math.max(a, b));
    dataset.box = [least(xs), least(ys), most(xs), most(ys)];
    dataset.origin = [dataset.box[0], dataset.box[1]];
    dataset.path = pathOf(lists, dataset.origin);
  }

  const grid = make("svg:g", { "aria-hidden": "true" });
  const parcels = make("svg:g", { "aria-hidden": "true" });
  const prints = make("svg:g", {});
  const titles = make("svg:g", { "aria-hidden": "true" });
  const frame = make("svg:g", { "aria-hidden": "true" });
  map.append(grid, parcels, prints, titles, frame);
  for (const dataset of datasets.filter((one) => one.box)) {
    const attributes = { tabindex: 0, role: "button", "aria-label": `${dataset.title || dataset.id}${dataset.simulated ? ", SIMULATED" : ""}`, "data-id": dataset.id };
    dataset.print = make("svg:path", { ...attributes, class: "foot-print" + (dataset.simulated ? " sim" : ""), d: dataset.path });
    dataset.dot = make("svg:circle", { ...attributes, class: "foot-print dot" + (dataset.simulated ? " sim" : ""), r: 7 });
    dataset.label = make("svg:text", { class: "title" }, dataset.title || dataset.id);
    for (const element of [dataset.print, dataset.dot]) {
      element.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(dataset, { focus: true }); }
      });
    }
  }

  // Parcels and patches: one path a class, drawn when a footprint is large enough on the screen.
  function drawOutlines(dataset) {
    const { kind, origin, step, rows } = dataset.outlines;
    const paths = new Map();
    for (const [crop, split, ...lists] of rows) {
      const key = kind === "patches" && crop === null ? `split ${split}` : crop;
      let d = "";
      for (const flat of lists) {
        let lon = 0, lat = 0;
        const points = [];
        for (let i = 0; i < flat.length; i += 2) {
          lon += flat[i];
          lat += flat[i + 1];
          points.push([origin[0] + lon * step, origin[1] + lat * step]);
        }
        d += pathOf([points], dataset.origin);
      }
      paths.set(key, (paths.get(key) || "") + d);
    }
    const classes = new Map((dataset.classes || []).map((row) => [row.index, row]));
    const group = make("svg:g", { "data-of": dataset.id });
    for (const [key, d] of paths) {
      const split = typeof key === "string" ? key.slice(6) : null;
      const row = classes.get(key);
      const fill = split ? SPLITS[split] || GREY : colour(row && row.colour);
      const path = make("svg:path", { d, fill, class: "parcel" + (kind === "patches" ? " patch" : "") });
      if (kind === "patches") path.style.stroke = fill;
      path.dataset.of = dataset.id;
      path.dataset.said = row ? row.name : split ? (split === "none" ? "patch" : `patch, ${split}`) : "class not known";
      group.append(path);
    }
    return group;
  }

  // The view

  const box = () => map.getBoundingClientRect();
  function place(dataset, rect) {
    const [x0, y0, x1, y1] = dataset.box, k = state.scale;
    return { left: (x0 - state.x) * k + rect.width / 2, top: (y0 - state.y) * k + rect.height / 2, width: (x1 - x0) * k, height: (y1 - y0) * k };
  }
  const isIn = (at, rect) => at.left < rect.width && at.left + at.width > 0 && at.top < rect.height && at.top + at.height > 0;
  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }
  function draw() {
    const rect = box();
    if (!rect.width || !rect.height) return;
    drawGrid(rect);
    drawScale(rect);
    const shown = new Set(state.shown);
    const wanted = { outlines: [], prints: [], labels: [] };
    const chosen = state.chosen && state.chosen.box ? state.chosen : null;
    // What is chosen lies on top, and alone shows its parcels where grounds meet.
    for (const dataset of [...datasets.filter((one) => one !== chosen), ...(chosen ? [chosen] : [])]) {
      if (!dataset.box || !(shown.has(dataset) || dataset === chosen)) continue;
      const at = place(dataset, rect);
      const isUnder = dataset !== chosen && chosen && meet(dataset.box, chosen.box);
      if (!isIn(at, rect) && Math.max(at.width, at.height) >= DOT_PX) continue;
      const isDot = Math.max(at.width, at.height) < DOT_PX;
      const element = isDot ? dataset.dot : dataset.print;
      if (isDot) {
        element.setAttribute("cx", at.left + at.width / 2);
        element.setAttribute("cy", at.top + at.height / 2);
      } else {
        element.setAttribute("transform", `matrix(${state.scale / UNIT} 0 0 ${state.scale / UNIT} ${at.left} ${at.top})`);
      }
      element.classList.toggle("chosen", dataset === state.chosen);
      const detailed = !isDot && !isUnder && dataset.outlines && Math.max(at.width, at.height) >= OUTLINES_PX;
      element.classList.toggle("detailed", Boolean(detailed));
      wanted.prints.push(element);
      if (detailed) {
        dataset.drawn = dataset.drawn || drawOutlines(dataset);
        dataset.drawn.setAttribute("transform", `matrix(${state.scale / UNIT} 0 0 ${state.scale / UNIT} ${at.left} ${at.top})`);
        wanted.outlines.push(dataset.drawn);
      }
      if (!isUnder) wanted.labels.push([dataset, at]);
    }
    arrange(parcels, wanted.outlines);
    arrange(prints, wanted.prints);
    drawLabels(wanted.labels, rect);
    if (byId("inview").checked) filter();
  }
  const meet = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  function arrange(group, elements) {
    if (elements.length === group.children.length && elements.every((one, i) => one === group.children[i])) return;
    const focused = document.activeElement;
    group.replaceChildren(...elements);
    if (elements.includes(focused)) focused.focus({ preventScroll: true }); // which replacing it has taken
  }
  function drawLabels(labels, rect) {
    const taken = [], kept = [];
    const order = labels.sort((a, b) => (b[0] === state.chosen) - (a[0] === state.chosen));
    for (const [dataset, at] of order) {
      const text = dataset.title || dataset.id;
      const most = Math.max(8, Math.min(40, Math.floor((rect.width - 84) / 7.8)));
      const width = Math.min(text.length, most) * 7.8, x = Math.max(8, Math.min(rect.width - width - 60, at.left)), y = Math.max(30, at.top - 8);
      // The panel says its name already, and a name over its parcels is hard to read.
      if (dataset === state.chosen && Math.max(at.width, at.height) >= OUTLINES_PX) continue;
      if (at.left > rect.width || at.top > rect.height) continue;
      if (taken.some(([a, b, c]) => x < a + c && a < x + width && Math.abs(y - b) < 17)) continue;
      taken.push([x, y, width]);
      dataset.label.textContent = text.length > most ? text.slice(0, most - 1) + "…" : text;
      dataset.label.setAttribute("x", x);
      dataset.label.setAttribute("y", y);
      kept.push(dataset.label);
    }
    titles.replaceChildren(...kept);
  }
  const STEPS = [60, 30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];
  function drawGrid(rect) {
    const lines = [], texts = [];
    const west = toLon(state.x - rect.width / 2 / state.scale), east = toLon(state.x + rect.width / 2 / state.scale);
    const north = toLat(state.y - rect.height / 2 / state.scale), south = toLat(state.y + rect.height / 2 / state.scale);
    const fit = (span, px) => [...STEPS].reverse().find((step) => (step / span) * px >= 96) || STEPS[0];
    const stepLon = fit(east - west, rect.width), stepLat = fit(north - south, rect.height);
    const digits = (step) => Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    for (let i = Math.ceil(Math.max(-180, west) / stepLon); i * stepLon <= Math.min(180, east); i++) {
      const lon = i * stepLon, x = (toX(lon) - state.x) * state.scale + rect.width / 2;
      lines.push(make("svg:line", { x1: x, x2: x, y1: 0, y2: rect.height }));
      texts.push(make("svg:text", { x: x + 4, y: rect.height - 7 }, `${Math.abs(lon).toFixed(digits(stepLon))}°${lon > 0 ? " E" : lon < 0 ? " W" : ""}`));
    }
    for (let i = Math.ceil(Math.max(-85, south) / stepLat); i * stepLat <= Math.min(85, north); i++) {
      const lat = i * stepLat, y = (toY(lat) - state.y) * state.scale + rect.height / 2;
      lines.push(make("svg:line", { x1: 0, x2: rect.width, y1: y, y2: y }));
      if (y < rect.height - 60) texts.push(make("svg:text", { x: 7, y: y - 5 }, `${Math.abs(lat).toFixed(digits(stepLat))}°${lat > 0 ? " N" : lat < 0 ? " S" : ""}`));
    }
    grid.replaceChildren(...lines);
    frame.replaceChildren(...texts);
  }
  function drawScale(rect) {
    const metres = (EARTH_M * Math.cos((toLat(state.y) * Math.PI) / 180)) / state.scale; // of a pixel in the middle
    const longest = Math.min(140, rect.width / 4) * metres;
    const power = 10 ** Math.floor(Math.log10(longest));
    const length = [5, 2, 1].map((n) => n * power).find((n) => n <= longest) || power;
    byId("scale").textContent = length >= 1000 ? `${count(length / 1000)} km` : `${count(length)} m`;
    byId("bar").style.width = `${length / metres}px`;
  }
  function clamp() {
    const rect = box();
    state.scale = Math.max(Math.min(256, rect.width || 256), Math.min(2 ** 27, state.scale));
    state.x = Math.max(0, Math.min(1, state.x));
    state.y = Math.max(0, Math.min(1, state.y));
  }
  function show(boxes, share) {
    const rect = box();
    if (!boxes.length || !rect.width) return;
    const [x0, y0] = [Math.min(...boxes.map((b) => b[0])), Math.min(...boxes.map((b) => b[1]))];
    const [x1, y1] = [Math.max(...boxes.map((b) => b[2])), Math.max(...boxes.map((b) => b[3]))];
    state.x = (x0 + x1) / 2;
    state.y = (y0 + y1) / 2;
    state.scale = share * Math.min(rect.width / Math.max(x1 - x0, 1e-6), rect.height / Math.max(y1 - y0, 1e-6));
    clamp();
    redraw();
  }
  function zoom(factor, at) {
    const rect = box(), x = at ? at[0] - rect.left - rect.width / 2 : 0, y = at ? at[1] - rect.top - rect.height / 2 : 0;
    const before = state.scale;
    state.scale *= factor;
    clamp();
    state.x += x / before - x / state.scale;
    state.y += y / before - y / state.scale;
    clamp();
    redraw();
  }
  const showAll = () => show(state.shown.filter((one) => one.box).map((one) => one.box), 0.72);

  // Pointer and keys

  const pointers = new Map();
  let moved = 0;
  map.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (pointers.size === 1) moved = 0;
  });
  map.addEventListener("pointermove", (event) => {
    tell(event);
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const now = [event.clientX, event.clientY];
    if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const spread = (a, b) => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
      zoom(spread(now, other) / spread(last, other), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
      moved = 99;
    } else {
      moved += Math.hypot(now[0] - last[0], now[1] - last[1]);
      if (moved > 4) {
        if (!map.hasPointerCapture(event.pointerId)) map.setPointerCapture(event.pointerId);
        map.classList.add("moving");
        state.x -= (now[0] - last[0]) / state.scale;
        state.y -= (now[1] - last[1]) / state.scale;
        clamp();
        redraw();
      }
    }
    pointers.set(event.pointerId, now);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    map.addEventListener(name, (event) => { pointers.delete(event.pointerId); map.classList.remove("moving"); });
  }
  map.addEventListener("pointerleave", () => { byId("readout").textContent = ""; });
  map.addEventListener("click", (event) => {
    if (moved > 4) return;
    // Several may lie on each other: a further click takes the next.
    const ids = new Set(document.elementsFromPoint(event.clientX, event.clientY).map((e) => e.dataset && (e.dataset.id || e.dataset.of)).filter(Boolean));
    const under = datasets.filter((one) => ids.has(one.id));
    if (under.length) choose(under[(under.indexOf(state.chosen) + 1) % under.length], {});
  });
  map.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), [event.clientX, event.clientY]);
  }, { passive: false });
  map.addEventListener("dblclick", (event) => zoom(2, [event.clientX, event.clientY]));
  document.querySelector(".map").addEventListener("keydown", (event) => {
    const step = 80 / state.scale;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) { state.x += moves[event.key][0]; state.y += moves[event.key][1]; clamp(); redraw(); }
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else return;
    event.preventDefault();
  });
  byId("closer").addEventListener("click", () => zoom(1.8));
  byId("farther").addEventListener("click", () => zoom(1 / 1.8));
  byId("all").addEventListener("click", showAll);
  function tell(event) {
    const rect = box();
    const lon = toLon(state.x + (event.clientX - rect.left - rect.width / 2) / state.scale);
    const lat = toLat(state.y + (event.clientY - rect.top - rect.height / 2) / state.scale);
    const digits = Math.max(1, Math.min(5, Math.round(Math.log10(state.scale / 360)) + 0));
    const said = document.elementsFromPoint(event.clientX, event.clientY).find((e) => e.dataset && e.dataset.said);
    const where = `${Math.abs(lat).toFixed(digits)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(digits)}° ${lon < 0 ? "W" : "E"}`;
    byId("readout").textContent = said ? `${said.dataset.said} · ${where}` : where;
  }

  // The list

  function card(dataset) {
    const picture = (dataset.pictures || []).find((one) => one.best) || (dataset.pictures || [])[0];
    return make("li", {}, make("button", { type: "button", class: "card", "data-id": dataset.id, onclick: () => choose(dataset, { zoom: true, focus: true }) },
      picture ? make("img", { class: "thumb", src: picture.href, alt: "", loading: "lazy" }) : make("span", { class: "thumb" }),
      make("b", {}, dataset.title || dataset.id),
      make("span", { class: "meta" }, dataset.id, make("br"), `${dataset.start} to ${dataset.end}`),
      badges(dataset, false)));
  }
  function badges(dataset, all) {
    return make("span", { class: "badges" },
      dataset.simulated && make("span", { class: "badge sim" }, "SIMULATED"),
      !dataset.complete ? make("span", { class: "badge bad" }, "Not complete") : all && make("span", { class: "badge good" }, "Complete"),
      all && make("span", { class: "badge" }, `family ${dataset.family}`),
      dataset.profile === "patches" && make("span", { class: "badge" }, "patches"),
      !dataset.labels && make("span", { class: "badge" }, "no labels"),
      !dataset.box && make("span", { class: "badge" }, "place not known"));
  }
  for (const dataset of datasets) dataset.card = card(dataset);
  const families = [...new Set(datasets.map((one) => one.family))];
  byId("family").append(make("option", { value: "" }, "All families"), ...families.map((name) => make("option", { value: name }, name)));

  function words(dataset) {
    if (!dataset.words) {
      const crops = (dataset.classes || []).filter((row) => row.index && (row.pixels || row.parcels)).map((row) => row.name);
      dataset.words = [dataset.id, dataset.family, dataset.title, dataset.description, dataset.licence, dataset.attribution,
        dataset.simulated ? "simulated" : "", dataset.profile, ...(dataset.bands || []), ...crops].join("\n").toLowerCase();
    }
    return dataset.words;
  }
  function filter() {
    const asked = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const family = byId("family").value, rect = box();
    const found = datasets.filter((one) => (!family || one.family === family) && asked.every((word) => words(one).includes(word)));
    const listed = byId("inview").checked ? found.filter((one) => one.box && isIn(place(one, rect), rect)) : found;
    const changed = found.length !== state.shown.length || found.some((one, i) => one !== state.shown[i]);
    state.shown = found;
    const list = byId("list"), cards = listed.map((one) => one.card);
    if (cards.length !== list.children.length || cards.some((one, i) => one !== list.children[i])) list.replaceChildren(...cards);
    byId("none").hidden = listed.length > 0;
    byId("none").textContent = datasets.length ? "No dataset is all that." : "The catalogue is empty: sits-catalog cubes add DATASET puts one into it.";
    byId("count").textContent = listed.length === datasets.length ? plural(datasets.length, "dataset") : `${listed.length} of ${plural(datasets.length, "dataset")}`;
    if (changed) redraw();
  }
  byId("search").addEventListener("input", filter);
  byId("family").addEventListener("change", filter);
  byId("inview").addEventListener("change", filter);

  // What is chosen

  function choose(dataset, { zoom: isZoom, focus }) {
    state.chosen = dataset;
    for (const one of datasets) one.card.firstChild.setAttribute("aria-current", one === dataset ? "true" : "false");
    byId("panes").classList.toggle("chosen", Boolean(dataset));
    const detail = byId("detail");
    detail.hidden = !dataset;
    if (dataset) {
      detail.replaceChildren(...describe(dataset));
      detail.scrollTop = 0;
      dataset.card.scrollIntoView({ block: "nearest" });
      if (focus) detail.querySelector("h2").focus({ preventScroll: true });
      if (innerWidth <= 900) detail.scrollIntoView({ block: "start" });
      // The name may be of a stranger; assigning replaceState would fail for a file in some browsers, a hash does not.
      if (decodeURIComponent(location.hash.slice(1)) !== dataset.id) history.replaceState(null, "", "#" + encodeURIComponent(dataset.id));
      if (isZoom && dataset.box) show([dataset.box], 0.8);
    } else if (location.hash) {
      history.replaceState(null, "", "#");
    }
    redraw();
  }
  function describe(dataset) {
    const title = make("h2", { tabindex: -1 }, dataset.title || dataset.id);
    const close = make("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => { choose(null, {}); dataset.card.firstChild.focus(); } }, "×");
    return [
      make("header", {}, title, close),
      badges(dataset, true),
      dataset.simulated && make("p", { class: "alert sim" }, "SIMULATED: everything here is made up and says nothing about a real place."),
      !dataset.complete && make("p", { class: "alert bad" }, "Not complete: sources could not be read, or cells are not built yet."),
      ...pictures(dataset), facts(dataset), ...classes(dataset), ...splits(dataset), ...rights(dataset), ...commands(dataset),
    ].filter(Boolean);
  }
  function pictures(dataset) {
    const all = dataset.pictures || [];
    if (!all.length) return [];
    const first = all.find((one) => one.best) || all[0];
    const image = make("img", { id: "preview", src: first.href, alt: first.caption });
    const caption = make("figcaption", {}, short(first.caption));
    const buttons = all.map((one) => make("button", {
      type: "button", "aria-pressed": String(one === first), "aria-label": one.caption, title: short(one.caption),
      onclick: (event) => {
        image.src = one.href;
        image.alt = one.caption;
        caption.textContent = short(one.caption);
        for (const button of buttons) button.setAttribute("aria-pressed", String(button === event.currentTarget));
      },
    }, make("img", { src: one.href, alt: "" })));
    return [make("figure", { class: "shot" }, image, caption), all.length > 1 && make("div", { class: "strip" }, ...buttons)];
  }
  const short = (caption) => (caption.match(/\d{4}-\d{2}-\d{2}/) || [caption])[0];
  function fact(name, value, more) {
    return make("div", {}, make("dt", {}, name), make("dd", {}, value, more && make("small", {}, more)));
  }
  function facts(dataset) {
    const rows = [];
    if (dataset.shape) {
      const [height, width] = dataset.shape;
      rows.push(fact("Size, px", `${count(width)} × ${count(height)}`, `${(width / 100).toFixed(1)} × ${(height / 100).toFixed(1)} km`));
    }
    if (dataset.patches) rows.push(fact("Patches", count(dataset.patches)));
    if (dataset.dates) rows.push(fact(dataset.patches ? "Dates a patch" : "Dates", dataset.patches ? `up to ${dataset.dates}` : count(dataset.dates)));
    rows.push(fact("From", dataset.start, `to ${dataset.end}`));
    if (dataset.bands) rows.push(fact("Bands", dataset.bands.length, dataset.bands.join(" ")));
    rows.push(fact("On disk", size(dataset.bytes)));
    if (dataset.crs) rows.push(fact("Grid", dataset.crs, "10 m"));
    if (dataset.level) rows.push(fact("Level", dataset.level));
    return make("dl", { class: "facts" }, ...rows);
  }
  function classes(dataset) {
    const rows = (dataset.classes || []).filter((row) => row.pixels || row.parcels);
    if (!rows.length) return [];
    const crops = rows.filter((row) => row.index).sort((a, b) => b.pixels - a.pixels), rest = rows.filter((row) => !row.index);
    const most = Math.max(1, ...crops.map((row) => row.pixels)), hasParcels = crops.some((row) => row.parcels);
    const line = (row) => make("tr", {},
      make("td", {}, make("span", { class: "swatch", style: { background: row.index ? colour(row.colour) : "transparent" } }), row.name),
      make("td", {}, count(row.pixels)),
      hasParcels && make("td", {}, row.index ? count(row.parcels) : ""),
      make("td", {}, row.index ? make("span", { class: "meter", style: { width: `${(64 * row.pixels) / most}px`, background: colour(row.colour) } }) : ""));
    const head = make("tr", {}, make("th", {}, "Class"), make("th", { class: "number" }, "Pixels"), hasParcels && make("th", { class: "number" }, "Parcels"), make("th", { class: "share" }));
    const drawn = dataset.outlines && dataset.outlines.rows.length < dataset.outlines.total
      ? `${count(dataset.outlines.rows.length)} of ${plural(dataset.outlines.total, dataset.outlines.kind === "patches" ? "patch" : "parcel", dataset.outlines.kind)} drawn${dataset.outlines.kind === "parcels" ? ", the largest" : ""}` : null;
    return [make("h3", {}, "Classes", drawn && make("small", { id: "cut" }, drawn)),
      make("table", { class: "rows", id: "classes" }, make("thead", {}, head), make("tbody", {}, ...crops.map(line), ...rest.map(line)))];
  }
  function splits(dataset) {
    const rows = dataset.splits || [];
    if (!rows.length) return [];
    const amount = (row) => row.patches ?? row.parcels ?? 0, total = rows.reduce((sum, row) => sum + amount(row), 0) || 1;
    const kind = rows.some((row) => row.patches !== undefined) ? "Patches" : "Parcels";
    const bar = make("div", { class: "stack", role: "img", "aria-label": "Shares of the splits" },
      ...rows.map((row) => make("span", { style: { width: `${(100 * amount(row)) / total}%`, background: SPLITS[row.name] || GREY } })));
    const line = (row) => make("tr", {},
      make("td", {}, make("span", { class: "swatch", style: { background: SPLITS[row.name] || GREY } }), row.name === "none" ? "in none" : row.name),
      make("td", {}, count(amount(row))), make("td", {}, row.pixels === undefined ? "" : count(row.pixels)));
    const head = make("tr", {}, make("th", {}, "Split"), make("th", { class: "number" }, kind), make("th", { class: "number" }, "Pixels"));
    const folds = dataset.folds && make("p", { class: "text" }, "Folds: " + Object.entries(dataset.folds).map(([fold, n]) => `${fold} (${count(n)})`).join(", "));
    return [make("h3", {}, "Splits"), bar, make("table", { class: "rows", id: "splits" }, make("thead", {}, head), make("tbody", {}, ...rows.map(line))), folds];
  }
  function rights(dataset) {
    const said = (name, value) => value && make("p", { class: "text" }, make("b", {}, `${name}: `), value);
    const software = Object.entries(dataset.software || {}).map((pair) => pair.join(" ")).join(", ");
    const providers = ((dataset.sources || {}).providers || []).join(", ");
    const sources = dataset.sources && [dataset.simulated ? `simulated, in the form of ${providers}` : providers, Object.entries(dataset.sources.items || {}).map(([state, n]) => `${count(n)} ${state}`).join(", ")].filter(Boolean).join(": ");
    return [
      make("h3", {}, "Licence and origin"),
      said("Licence", dataset.licence || "not stated"),
      said("Attribution", dataset.attribution),
      said("Source items", sources),
      said("Made", [software, (dataset.created || "").slice(0, 10)].filter(Boolean).join(", ")),
      said("How", dataset.lineage),
      dataset.config && make("p", { class: "text" }, make("b", {}, "Configuration: "), make("code", {}, dataset.config.slice(0, 16))),
    ];
  }

  // Commands

  const isRemote = (address) => address.includes("://");
  function folder() {
    if (document.documentElement.dataset.folder) return document.documentElement.dataset.folder;
    if (location.protocol !== "file:") return "";
    return decodeURIComponent(location.pathname).replace(/\/[^/]*$/, "");
  }
  function whole(address) {
    if (isRemote(address) || !folder()) return address;
    const parts = folder().split("/");
    for (const part of address.split("/")) if (part === "..") parts.pop(); else if (part !== ".") parts.push(part);
    return parts.join("/") || "/";
  }
  const shell = (text) => (/^[\w@%+=:,./-]+$/.test(text) && !text.startsWith("-") ? text : `'${text.replaceAll("'", "'\\''")}'`);
  function commands(dataset) {
    const path = whole(dataset.address), zarr = JSON.stringify(`${path}/cube.zarr`);
    const texts = [
      `sits-cube info ${shell(path)}`,
      `import xarray as xr\n\ncube = xr.open_zarr(${zarr}, mask_and_scale=False)`,
      dataset.labels && dataset.profile === "region" && `sits-model pretrain --recipe cscl-laptop --cube ${shell(path)} --out ${shell("runs/" + dataset.id)}`,
    ].filter(Boolean);
    const link = (href, text) => make("a", { href }, text);
    const item = `${dataset.family}/${dataset.id}/${dataset.id}.json`;
    const near = location.protocol === "file:" ? dataset.address.split("/").map(encodeURIComponent).join("/") : `datasets/${dataset.id}`;
    const report = isRemote(dataset.address) ? (/^https?:/.test(dataset.address) ? `${dataset.address}/report.html` : null) : `${near}/report.html`;
    return [make("h3", {}, "Use it"), ...texts.map(command),
      make("p", { class: "links" }, report && link(report, "Report"), link(item, "STAC item"))];
  }
  function command(text) {
    const button = make("button", { type: "button", class: "copy", onclick: () => copy(text).then((done) => {
      button.dataset.state = done ? "copied" : "failed";
      button.textContent = done ? "Copied" : "Not copied";
      setTimeout(() => { button.textContent = "Copy"; delete button.dataset.state; }, 2500);
    }) }, "Copy");
    return make("div", { class: "command" }, make("pre", {}, make("code", {}, text)), button);
  }
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // A page from disk has no clipboard in some browsers; the old way needs a field with the text chosen.
      const field = make("textarea", { readonly: true, class: "hidden" });
      field.value = text;
      document.body.append(field);
      field.select();
      const done = document.execCommand("copy");
      field.remove();
      return done;
    }
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && state.chosen) choose(null, {});
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); byId("search").focus(); }
  });
  new ResizeObserver(redraw).observe(map);
  filter();
  showAll();
  const linked = datasets.find((one) => "#" + encodeURIComponent(one.id) === location.hash);
  if (linked) choose(linked, { zoom: true });
  redraw();
})();
