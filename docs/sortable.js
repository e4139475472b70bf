// Tables in <div class="sortable">: a click on a column's heading sorts the rows by it.
for (const table of document.querySelectorAll(".sortable table")) {
  const body = table.tBodies[0];
  const valueOf = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = Number.parseFloat(text.replace(/[,%]/g, ""));
    return Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const compare = (a, b) => {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // cells without a number last
    return typeof a === "number" ? a - b : a.localeCompare(b);
  };
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const sort = () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
      rows.sort(([a], [b]) => (down && typeof a === typeof b ? compare(b, a) : compare(a, b)));
      body.append(...rows.map(([, row]) => row));
    };
    heading.tabIndex = 0;
    heading.style.cursor = "pointer";
    heading.title = "Sort by this column";
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter") sort();
    });
  });
}
