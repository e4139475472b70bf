// Tells about the cluster that is pointed at or chosen; finds, lists and copies its neurons.
const beside = () => innerWidth > 960;
const short = (number) => (number === 0 ? "0" : Number(number.toPrecision(3)).toString());
const percent = (share) => (100 * share).toFixed(1) + "%";
const element = (tag, attributes, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};
const button = (text, action, attributes = {}) => {
  const made = element("button", { type: "button", class: "csv", ...attributes }, text);
  made.addEventListener("click", () => action(made));
  return made;
};

function decode(text, type) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new type(bytes.buffer);
}

function neuronName(data, layer, index) {
  const heads = data.heads[layer];
  if (!heads) return `${data.short[layer]} ${index}`;
  const size = data.sizes[layer] / heads, parts = data.short[layer].split("."), last = parts.pop();
  return [...parts, `H${Math.floor(index / size)}`, `${last} ${index % size}`].join(".");
}

function neuronRows(data) {
  const degrees = decode(data.neurons.degrees, Float32Array);
  const rows = [["layer", "index", "cluster", "degree"]];
  let vertex = 0;
  data.sizes.forEach((size, layer) => {
    for (let index = 0; index < size; index++, vertex++)
      rows.push([data.layers[layer], index, data.labels[vertex], Number(degrees[vertex].toPrecision(7))]);
  });
  return rows;
}

function csvRows(data, name) {
  return name === "neurons" ? neuronRows(data) : [data.tables[name].names, ...data.tables[name].rows];
}

// Indices of a cluster's neurons in each layer.
function indices(data, cluster) {
  let start = 0;
  return data.sizes.map((size) => {
    const found = [];
    for (let index = 0; index < size; index++) if (data.labels[start + index] === cluster) found.push(index);
    start += size;
    return found;
  });
}

// "0-3, 7" for [0, 1, 2, 3, 7].
function ranges(numbers) {
  const parts = [];
  for (let at = 0; at < numbers.length; at++) {
    const first = numbers[at];
    while (numbers[at + 1] === numbers[at] + 1) at++;
    parts.push(first === numbers[at] ? `${first}` : `${first}-${numbers[at]}`);
  }
  return parts.join(", ");
}

function maskText(data, found) {
  const lines = found.map((at, layer) => [at, layer]).filter(([at]) => at.length).map(([at, layer]) =>
    `    ${JSON.stringify(data.layers[layer])}: np.isin(np.arange(${data.sizes[layer]}), ${JSON.stringify(at)}),`);
  return ["import numpy as np", "", "mask = {", ...lines, "}", ""].join("\n");
}

// Levels of the panel's headings: below those of the page's sections.
const [heading, subheading] = document.querySelectorAll("article").length > 1 ? ["h4", "h5"] : ["h3", "h4"];

// The panel's description of a cluster.
function describe(data, cluster, link) {
  const one = data.clusters[cluster];
  const total = data.clusters.reduce((sum, other) => sum + other.volume, 0) || 1;
  const facts = [[one.neurons.toLocaleString("en"), one.neurons === 1 ? "neuron" : "neurons"], [percent(one.volume / total), "of the weight"]];
  if (one.inside != null) facts.push([percent(one.inside), "of its weight inside"], [one.cut.toFixed(3), "of the n-cut"]);
  const parts = [
    element(heading, { class: "cluster-name" }, element("i", { style: "background:" + data.colors[cluster] }), "Cluster " + cluster),
    element("dl", {}, ...facts.map(([value, what]) => element("div", {}, element("dd", {}, value), element("dt", {}, what)))),
  ];
  const most = Math.max(...one.layers, 1);
  const lists = data.labels && indices(data, cluster);
  const shown = one.layers.map((count, layer) => [count, layer]).filter(([count]) => count > 0);
  const row = ([count, layer]) => [element("span", { class: "name", title: data.layers[layer] }, data.short[layer]),
    element("span", { class: "bar" }, element("i", { style: `width:${(100 * count) / most}%;background:${data.colors[cluster]}` })),
    element("span", { class: "count" }, count.toLocaleString("en"))];
  parts.push(element(subheading, { class: "minor" }, "Neurons per layer"), element("ul", { class: "counts" }, ...shown.map((pair) => lists
    ? element("li", {}, element("details", {}, element("summary", {}, ...row(pair)), element("p", { class: "indices" }, ranges(lists[pair[1]]))))
    : element("li", { class: "plain" }, ...row(pair)))));
  if (lists) {
    const layers = Object.fromEntries(shown.map(([, layer]) => [data.layers[layer], lists[layer]]));
    parts.push(element("p", { class: "copies" },
      button("Copy indices", (made) => copyText(JSON.stringify(layers), made)),
      button("Copy mask", (made) => copyText(maskText(data, lists), made)),
      button("Copy link", (made) => copyText(link(cluster), made))));
  }
  if (one.edges.length)
    parts.push(element(subheading, { class: "minor" }, "Strongest edges"), element("ol", { class: "edges" }, ...one.edges.map(([a, i, c, first, b, j, d, second, weight]) =>
      element("li", {}, element("span", { class: "ends" }, element("span", { class: "name", title: `${data.layers[a]} ${i}` }, first), " – ", element("span", { class: "name", title: `${data.layers[b]} ${j}` }, second)),
        element("span", { class: "where" }, c === d ? "inside" : "to " + (c === cluster ? d : c)),
        element("span", { class: "count" }, short(weight))))));
  return parts;
}

function activate(article, only) {
  const data = JSON.parse(article.querySelector(".report-data").textContent);
  if (data.neurons) data.labels = decode(data.neurons.labels, { 8: Int8Array, 16: Int16Array, 32: Int32Array }[data.neurons.bits]);
  const panel = article.querySelector(".panel");
  const chips = [...article.querySelectorAll(".chips button")];
  const marked = [...article.querySelectorAll(".maps [data-cluster]")];
  const hash = (cluster) => (only ? "#" : `#${article.id}&`) + `cluster=${cluster}`;
  const link = (cluster) => location.href.split("#")[0] + hash(cluster);
  let chosen = null;

  const show = (cluster) => {
    panel.hidden = cluster === null;
    if (cluster === null) return;
    panel.replaceChildren(...describe(data, cluster, link));
    if (cluster !== chosen) return;
    panel.append(button("×", () => choose(null), { class: "close", "aria-label": "Close" }));
  };
  const choose = (cluster) => {
    chosen = cluster === chosen ? null : cluster;
    chips.forEach((chip, at) => chip.setAttribute("aria-pressed", at === chosen));
    if (chosen !== null || !beside()) show(chosen);
    else panel.querySelector(".close")?.remove();
    // Everything but the chosen cluster steps back.
    for (const one of marked)
      one.classList.toggle("back", chosen !== null && +one.dataset.cluster !== chosen && one.dataset.other !== String(chosen));
    history.replaceState(null, "", chosen === null ? location.pathname + location.search : hash(chosen));
  };
  chips.forEach((chip, at) => {
    chip.addEventListener("click", () => choose(at));
    chip.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = chips[(at + step + chips.length) % chips.length];
      chips.forEach((one) => one.setAttribute("tabindex", one === next ? 0 : -1));
      next.focus();
    });
  });
  const maps = article.querySelector(".maps");
  const clusterAt = (event) => {
    const found = event.target.closest?.("[data-cluster]");
    return found ? +found.dataset.cluster : null;
  };
  maps.addEventListener("pointerover", (event) => {
    const cluster = clusterAt(event);
    if (cluster !== null && chosen === null && beside()) show(cluster);
  });
  maps.addEventListener("click", (event) => {
    const cluster = clusterAt(event);
    if (cluster !== null) choose(cluster);
  });

  const field = article.querySelector(".search input"), list = article.querySelector(".found");
  field?.addEventListener("input", () => {
    const words = field.value.trim().toLowerCase().split(/\s+/).filter(Boolean), found = [];
    let start = 0;
    for (let layer = 0; words.length && layer < data.sizes.length && found.length < 20; layer++) {
      for (let index = 0; index < data.sizes[layer] && found.length < 20; index++) {
        const name = neuronName(data, layer, index), text = `${name} ${data.layers[layer]}`.toLowerCase();
        const exact = String(index);
        if (words.every((word) => (/^\d+$/.test(word) ? word === exact || name.toLowerCase().split(/\D+/).includes(word) : text.includes(word))))
          found.push([name, data.labels[start + index]]);
      }
      start += data.sizes[layer];
    }
    list.hidden = !words.length;
    list.replaceChildren(...(found.length ? found.map(([name, cluster]) => element("li", {}, cluster < 0 ? `${name}: not connected`
      : button(`${name}: cluster ${cluster}`, () => { if (chosen !== cluster) choose(cluster); }))) : [element("li", {}, "no such neuron")]));
  });

  const select = article.querySelector("select.statistic");
  select?.addEventListener("change", () => {
    for (const one of article.querySelectorAll(".one-of")) one.hidden = one.dataset.statistic !== select.value;
  });
  for (const one of article.querySelectorAll("button.csv[data-csv]"))
    one.addEventListener("click", () => saveCsv(`${data.file}-${one.dataset.csv}`, csvRows(data, one.dataset.csv)));
  for (const one of article.querySelectorAll("button[data-save]"))
    one.addEventListener("click", () => {
      const figure = one.closest("figure");
      saveChart(figure.querySelector(".chart"), `${data.file}-${figure.dataset.figure}`, one.dataset.save);
    });
  for (const one of article.querySelectorAll("button[data-copy]"))
    one.addEventListener("click", () => copyText(one.parentNode.querySelector("code").textContent, one));

  // Where the panel has a column of its own, it is never empty.
  const largest = data.clusters.reduce((best, one, at, all) => (one.volume > all[best].volume ? at : best), 0);
  if (beside()) show(largest);
  const follow = () => {
    const found = /^#(?:(network-\d+)&)?cluster=(\d+)$/.exec(location.hash);
    if (!found || (found[1] ?? "network-1") !== article.id || +found[2] >= data.clusters.length || +found[2] === chosen) return;
    choose(+found[2]);
    article.querySelector(".map").scrollIntoView();
  };
  addEventListener("hashchange", follow);
  follow();
}

const articles = [...document.querySelectorAll("article")];
articles.forEach((article) => activate(article, articles.length === 1));
// On paper everything is open.
addEventListener("beforeprint", () => document.querySelectorAll("article details:not([open])").forEach((one) => { one.open = true; one.dataset.closed = ""; }));
addEventListener("afterprint", () => document.querySelectorAll("details[data-closed]").forEach((one) => { one.open = false; delete one.dataset.closed; }));
