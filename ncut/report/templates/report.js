// Draws each network's pictures, and tells about the cluster that is pointed at or chosen.
const FINE = matchMedia("(pointer: fine)").matches;
const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
const beside = () => innerWidth > 960;
const short = (number) => (number === 0 ? "0" : Number(number.toPrecision(3)).toString());
const percent = (share) => (100 * share).toFixed(1) + "%";
const element = (tag, attributes, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

function decode(text, type) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new type(bytes.buffer);
}

function neuronRows(data) {
  const labels = decode(data.neurons.labels, { 8: Int8Array, 16: Int16Array, 32: Int32Array }[data.neurons.bits]);
  const degrees = decode(data.neurons.degrees, Float32Array);
  const rows = [["layer", "index", "cluster", "degree"]];
  let vertex = 0;
  data.sizes.forEach((size, layer) => {
    for (let index = 0; index < size; index++, vertex++)
      rows.push([data.layers[layer], index, labels[vertex], Number(degrees[vertex].toPrecision(7))]);
  });
  return rows;
}

function csvRows(data, name) {
  return name === "neurons" ? neuronRows(data) : [data.tables[name].names, ...data.tables[name].rows];
}

// What the panel says of a cluster.
function describe(data, cluster) {
  const one = data.clusters[cluster];
  const total = data.clusters.reduce((sum, other) => sum + other.volume, 0) || 1;
  const facts = [[one.neurons.toLocaleString("en"), one.neurons === 1 ? "neuron" : "neurons"], [percent(one.volume / total), "of the volume"]];
  if (one.inside != null) facts.push([percent(one.inside), "of its weight inside"], [one.cut.toFixed(3), "of the n-cut"]);
  const parts = [
    element("h4", {}, element("i", { style: "background:" + data.colors[cluster] }), "Cluster " + cluster),
    element("dl", {}, ...facts.map(([value, what]) => element("div", {}, element("dd", {}, value), element("dt", {}, what)))),
  ];
  const most = Math.max(...one.layers, 1);
  const shown = one.layers.map((count, layer) => [count, layer]).filter(([count]) => count > 0);
  const largest = [...shown].sort((a, b) => b[0] - a[0]).slice(0, 12).sort((a, b) => a[1] - b[1]);
  parts.push(element("h5", {}, "Neurons per layer"), element("ul", { class: "counts" }, ...largest.map(([count, layer]) =>
    element("li", {}, element("span", { class: "name" }, data.layers[layer]),
      element("span", { class: "bar" }, element("i", { style: `width:${(100 * count) / most}%;background:${data.colors[cluster]}` })),
      element("span", { class: "count" }, count.toLocaleString("en"))))));
  if (shown.length > largest.length) parts.push(element("p", { class: "quiet" }, `and ${shown.length - largest.length} more layers`));
  if (one.edges.length) {
    const end = (layer, index) => `${data.layers[layer]} ${index}`;
    parts.push(element("h5", {}, "Strongest edges"), element("ol", { class: "edges" }, ...one.edges.map(([a, i, c, b, j, d, weight]) =>
      element("li", {}, element("span", { class: "name" }, `${end(a, i)} – ${end(b, j)}`),
        element("span", { class: "where" }, c === d ? "inside" : "to " + (c === cluster ? d : c)),
        element("span", { class: "count" }, short(weight))))));
  }
  return parts;
}

function draw(article) {
  const data = JSON.parse(article.querySelector(".report-data").textContent);
  const plots = {};
  for (const box of article.querySelectorAll(".chart[data-figure]")) {
    const name = box.dataset.figure;
    const select = article.querySelector("select.statistic");
    const figure = name === "null" ? data.figures.null[select.value] : data.figures[name];
    if (FINE && name === "matrix") figure.layout.dragmode = "zoom";
    Plotly.newPlot(box, figure.data, figure.layout, CONFIG);
    plots[name] = box;
    if (name === "null")
      select.addEventListener("change", () => {
        const next = data.figures.null[select.value];
        Plotly.react(box, next.data, next.layout, CONFIG);
      });
  }

  const panel = article.querySelector(".panel");
  const chips = [...article.querySelectorAll(".chips button")];
  const links = plots.flow && [...plots.flow.data[0].link.color];
  const lines = plots.matrix && (plots.matrix.layout.shapes || []).slice();
  let chosen = null;

  const show = (cluster) => {
    panel.hidden = cluster === null;
    if (cluster === null) return;
    panel.replaceChildren(...describe(data, cluster));
    if (cluster !== chosen) return;
    const close = element("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
    close.addEventListener("click", () => choose(null));
    panel.append(close);
  };

  // Everything but the chosen cluster steps back.
  const mark = () => {
    const is = (cluster) => chosen === null || cluster === chosen;
    Plotly.restyle(plots.bars, { "marker.opacity": plots.bars.data.map((trace) => (is(trace.meta) ? 1 : 0.15)) });
    if (plots.flow) {
      const trace = plots.flow.data[0];
      const from = Array.from(decodeIfCoded(trace.link.source)), to = Array.from(decodeIfCoded(trace.link.target));
      const clusters = trace.meta.clusters;
      Plotly.restyle(plots.flow, { "link.color": [links.map((color, at) =>
        is(clusters[from[at]]) || is(clusters[to[at]]) ? color : "rgba(125,140,163,.08)")] });
    }
    if (plots.matrix) {
      const shapes = lines.slice();
      if (chosen !== null) {
        const [low, high] = [data.matrix.starts[chosen] - 0.5, data.matrix.starts[chosen + 1] - 0.5];
        shapes.push({ type: "rect", x0: low, x1: high, y0: low, y1: high, line: { width: 2.5, color: data.colors[chosen] } });
      }
      Plotly.relayout(plots.matrix, { shapes });
    }
  };

  const choose = (cluster) => {
    chosen = cluster === chosen ? null : cluster;
    chips.forEach((chip, at) => chip.setAttribute("aria-pressed", at === chosen));
    if (chosen !== null || !beside()) show(chosen);
    else panel.querySelector(".close")?.remove();
    mark();
  };
  chips.forEach((chip, at) => chip.addEventListener("click", () => choose(at)));

  const listen = (plot, clusterOf) => {
    plot.on("plotly_hover", (event) => {
      const cluster = clusterOf(event.points[0]);
      if (cluster != null && chosen === null) show(cluster);
    });
    plot.on("plotly_click", (event) => {
      const cluster = clusterOf(event.points[0]);
      if (cluster != null) choose(cluster);
    });
  };
  listen(plots.bars, (point) => point.data.meta);
  if (plots.flow)
    listen(plots.flow, (point) => plots.flow.data[0].meta.clusters[(point.source ?? point).pointNumber]);
  if (plots.matrix) {
    listen(plots.matrix, (point) => data.matrix.cluster[point.y]);
    const readout = article.querySelector(".readout");
    plots.matrix.on("plotly_hover", ({ points: [{ x, y, z }] }) => {
      const about = (at) => `cluster ${data.matrix.cluster[at]}, ${data.layers[data.matrix.layer[at]]}`;
      const mean = data.matrix.largest * (z / 65535) ** 2;
      readout.textContent = `${about(y)} × ${about(x)}: mean |w| ${short(mean)}`;
    });
  }
  for (const button of article.querySelectorAll("button.csv[data-csv]"))
    button.addEventListener("click", () => saveCsv(`${data.file}-${button.dataset.csv}`, csvRows(data, button.dataset.csv)));
  // Where the panel has a column of its own, it is never empty.
  const largest = data.clusters.reduce((best, one, at, all) => (one.volume > all[best].volume ? at : best), 0);
  if (beside()) show(largest);
  return Object.values(plots);
}

// plotly keeps arrays that came coded in base 64 as they came.
function decodeIfCoded(array) {
  if (!array.bdata) return array;
  const types = { i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array };
  return decode(array.bdata, types[array.dtype]);
}

const drawn = [...document.querySelectorAll("article")].flatMap(draw);
addEventListener("beforeprint", () => drawn.forEach((plot) => Plotly.relayout(plot, { autosize: false, width: 640 })));
addEventListener("afterprint", () => drawn.forEach((plot) => Plotly.relayout(plot, { autosize: true, width: null })));
