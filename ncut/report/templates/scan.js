for (const one of document.querySelectorAll("button[data-save]"))
  one.addEventListener("click", () => {
    const figure = one.closest("figure");
    saveChart(figure.querySelector(".chart"), figure.dataset.figure, one.dataset.save);
  });
