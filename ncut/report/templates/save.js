// Tables as CSV files, pictures as SVG and PNG, texts to the clipboard.
// A text that a table would take for a formula gets an apostrophe; numbers may begin with a sign.
const csvCell = (cell) => {
  const text = String(cell ?? "");
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text.replaceAll(",", ""))) ? "'" + text : text;
  return '"' + safe.replaceAll('"', '""') + '"';
};
const csvText = (rows) =>
  rows.map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
const saveBlob = (name, blob) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
const saveCsv = (name, rows) => saveBlob(name + ".csv", new Blob([csvText(rows)], { type: "text/csv" }));
for (const button of document.querySelectorAll("button.csv[data-table]")) {
  button.addEventListener("click", () =>
    saveCsv(button.dataset.table, [...document.getElementById(button.dataset.table).rows].map((row) =>
      [...row.cells].map((cell) => cell.textContent.trim().replaceAll("\u2212", "-")))));
}

// A copy of a chart in one SVG: its boxes, shapes and texts where the page shows them.
const SVG = "http://www.w3.org/2000/svg";
const node = (name, attributes, ...children) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
function svgOf(chart) {
  const frame = chart.getBoundingClientRect();
  const width = Math.ceil(frame.width), height = Math.ceil(frame.height);
  const paper = getComputedStyle(chart.closest("figure")).backgroundColor;
  const made = node("svg", { xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}` },
    node("rect", { width, height, fill: paper }));
  const place = (box) => ({ x: box.left - frame.left, y: box.top - frame.top, width: box.width, height: box.height });
  const visit = (one) => {
    const style = getComputedStyle(one), box = one.getBoundingClientRect();
    if (style.display === "none" || !box.width) return;
    if (one instanceof SVGSVGElement) {
      const copy = node("svg", { ...place(box), viewBox: one.getAttribute("viewBox"), preserveAspectRatio: one.getAttribute("preserveAspectRatio") ?? "xMidYMid meet" });
      for (const shape of one.children) {
        const drawn = shape.cloneNode(false), seen = getComputedStyle(shape);
        for (const name of [...drawn.getAttributeNames()]) if (name.startsWith("data-") || name === "class" || name === "style") drawn.removeAttribute(name);
        for (const name of ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-linecap", "stroke-dasharray", "opacity"]) drawn.setAttribute(name, seen.getPropertyValue(name));
        copy.append(drawn);
      }
      made.append(copy);
      return;
    }
    if (!/^(rgba\(.*, 0\)|transparent)$/.test(style.backgroundColor) && one !== chart)
      made.append(node("rect", { ...place(box), fill: style.backgroundColor }));
    for (const child of one.childNodes) {
      if (child.nodeType === Node.ELEMENT_NODE) visit(child);
      else if (child.textContent.trim()) {
        const range = document.createRange();
        range.selectNodeContents(child);
        const at = place(range.getBoundingClientRect());
        const steep = one.classList.contains("steep");
        const size = parseFloat(style.fontSize);
        made.append(node("text", {
          x: at.x, y: steep ? at.y + at.height : at.y + at.height / 2 + 0.35 * size, fill: style.color, "font-size": size,
          "font-family": "sans-serif", "font-weight": style.fontWeight,
          ...(steep ? { transform: `rotate(-40 ${at.x} ${at.y + at.height})` } : {}),
        }, child.textContent.trim()));
      }
    }
  };
  visit(chart);
  return { width, height, text: new XMLSerializer().serializeToString(made) };
}
function saveChart(chart, name, kind) {
  const { width, height, text } = svgOf(chart);
  if (kind === "svg") return saveBlob(name + ".svg", new Blob([text], { type: "image/svg+xml" }));
  const image = new Image();
  image.onload = () => {
    const canvas = document.createElement("canvas");
    canvas.width = 2 * width;
    canvas.height = 2 * height;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => saveBlob(name + ".png", blob), "image/png");
  };
  image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
}

async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1200);
}

// Texts of shapes, at the pointer.
const tip = document.querySelector(".tip");
document.addEventListener("pointermove", (event) => {
  const text = event.target.closest?.("[data-tip]")?.dataset.tip;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - width - 4)) + "px";
  tip.style.top = (event.clientY + 16 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 16) + "px";
});
document.addEventListener("pointerleave", () => { tip.hidden = true; });

// Tables whose header cells are buttons are sorted by that column: numbers as numbers.
for (const button of document.querySelectorAll("th button.sort")) {
  button.addEventListener("click", () => {
    const cell = button.closest("th"), table = cell.closest("table"), body = table.tBodies[0];
    const up = cell.getAttribute("aria-sort") !== "ascending";
    for (const other of cell.parentNode.children) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => {
      const text = row.cells[cell.cellIndex].textContent.trim().replaceAll("\u2212", "-");
      const number = parseFloat(text.replaceAll(",", ""));
      return Number.isNaN(number) ? text : number;
    };
    const compare = (a, b) => (typeof a === typeof b ? (typeof a === "number" ? a - b : a.localeCompare(b)) : typeof a === "number" ? -1 : 1);
    body.append(...[...body.rows].sort((a, b) => (up ? 1 : -1) * compare(value(a), value(b))));
  });
}
