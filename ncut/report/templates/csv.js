// Tables as CSV files. A button with data-table saves the table of that id as it is shown.
// A text that a table would take for a formula gets an apostrophe; numbers may begin with a sign.
const csvCell = (cell) => {
  const text = String(cell ?? "");
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text.replaceAll(",", ""))) ? "'" + text : text;
  return '"' + safe.replaceAll('"', '""') + '"';
};
const csvText = (rows) =>
  rows.map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
const saveCsv = (name, rows) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csvText(rows)], { type: "text/csv" }));
  link.download = name + ".csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
for (const button of document.querySelectorAll("button.csv[data-table]")) {
  button.addEventListener("click", () =>
    saveCsv(button.dataset.table, [...document.getElementById(button.dataset.table).rows].map((row) =>
      [...row.cells].map((cell) => cell.textContent.trim().replaceAll("\u2212", "-")))));
}
