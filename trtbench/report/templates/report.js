// What needs a script: sorting and filtering the rows, and tips that a keyboard and a finger reach. All else works without.
"use strict";

(() => {
  const table = document.getElementById("all-rows");
  const body = table.tBodies[0];
  const lines = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];

  // Sorting: each header with a key becomes a button; what has no value stays last.
  const compare = (a, b, way) => {
    if (a === b) return 0;
    if (a === "") return 1;
    if (b === "") return -1;
    const difference = Number(a) - Number(b);
    return way * (Number.isNaN(difference) ? a.localeCompare(b, undefined, { numeric: true }) : difference);
  };
  const sort = (head) => {
    const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
    const index = head.cellIndex;
    const value = (line) => line.cells[index].dataset.value;
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b), way)));
  };
  heads.filter((head) => head.dataset.key).forEach((head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(head));
    head.replaceChildren(button);
  });

  // Filtering: words that must all occur, and one choice for each column of few values.
  const form = document.getElementById("filters");
  const search = document.getElementById("search");
  const count = document.getElementById("count");
  const choices = ["Variant", "Precision", "Backend", "Device", "Batch", "Answer"].map((name) => {
    const index = heads.findIndex((head) => head.dataset.key === name);
    const values = [...new Set(lines.map((line) => line.cells[index].dataset.value))];
    if (values.length < 2) return null;
    const label = document.createElement("label");
    const select = document.createElement("select");
    select.name = name.toLowerCase();
    select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
    label.append(name, select);
    form.append(label);
    return { index, select };
  }).filter(Boolean);
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    lines.forEach((line) => {
      const text = line.textContent.toLowerCase();
      const isChosen = choices.every(({ index, select }) => ["", line.cells[index].dataset.value].includes(select.value));
      line.hidden = !(isChosen && words.every((word) => text.includes(word)));
    });
    const shown = lines.filter((line) => !line.hidden).length;
    count.textContent = `${shown} of ${lines.length} rows`;
  };
  const reset = document.createElement("button");
  reset.type = "reset";
  reset.textContent = "Show all";
  form.append(reset);
  ["input", "change"].forEach((name) => form.addEventListener(name, filter));
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();

  // Tips: one stop of the Tab key for each figure, arrows within it; Escape hides.
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  const show = (mark) => {
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const left = Math.min(box.left + box.width / 2 - tip.offsetWidth / 2, innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${scrollX + Math.max(8, left)}px`;
    tip.style.top = `${scrollY + (above > 0 ? above : box.bottom + 8)}px`;
  };
  document.querySelectorAll(".chart svg").forEach((chart) => {
    const marks = [...chart.querySelectorAll(".tip")];
    marks.forEach((mark, index) => {
      mark.querySelector("title")?.remove(); // the browser's own tip would stand over ours
      mark.setAttribute("tabindex", index === 0 ? "0" : "-1");
      mark.addEventListener("pointerenter", () => show(mark));
      mark.addEventListener("pointerleave", hide);
      mark.addEventListener("focus", () => show(mark));
      mark.addEventListener("blur", hide);
      mark.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (step === undefined) return;
        event.preventDefault();
        const next = marks[(index + step + marks.length) % marks.length];
        mark.setAttribute("tabindex", "-1");
        next.setAttribute("tabindex", "0");
        next.focus();
      });
    });
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // A link into what is folded opens it.
  const open = () => {
    const target = document.getElementById(location.hash.slice(1));
    for (let one = target?.closest("details"); one; one = one.parentElement.closest("details")) one.open = true;
    target?.scrollIntoView();
  };
  addEventListener("hashchange", open);
  if (location.hash) open();

  // Paper has no summary to open.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));
})();
