// The confusion matrix of one task.

function drawConfusion(showRows) {
  const known = DATA.tasks.filter(({ samples }) => samples.confusion?.labels?.length);
  if (!known.length) {
    byId("confusion-matrix").append(el("p", { class: "note" }, "No confusion matrix is known."));
    byId("confusion").querySelector(".controls").hidden = true;
    return;
  }
  const select = byId("confusion-task");
  select.append(...known.map(({ name }, position) => option(position, name)));
  const draw = () => {
    const task = known[Number(select.value)];
    byId("confusion-matrix").replaceChildren(confusionTable(task, byId("confusion-share").checked, showRows));
  };
  select.addEventListener("change", draw);
  byId("confusion-share").addEventListener("change", draw);
  draw();
}

function confusionTable({ name, samples }, inPercent, showRows) {
  const { labels, counts } = samples.confusion;
  const answers = [...labels, null];
  const lines = labels.map((truth, i) => {
    const row = counts[i] ?? [];
    const total = row.reduce((sum, number) => sum + (number || 0), 0);
    const cells = answers.map((answer, j) => {
      const number = row[j] || 0;
      const share = total ? number / total : 0;
      if (!number) return el("td", { class: "zero" }, "·");
      const cell = el("td", { class: i === j ? "match" : "" }, el("button", {
        type: "button", tabindex: "-1", "aria-label": `truth ${truth}, answer ${answer ?? "none"}: ${number}`,
        title: `truth ${truth}, answer ${answer ?? "none"}: ${number} of ${total}`,
        onclick: () => showRows({ subject: `task:${name}`, pair: { truth, label: answer } }),
      }, inPercent ? percent(share, 0) : count(number)));
      cell.style.setProperty("--share", `${(100 * share).toFixed(1)}%`);
      return cell;
    });
    return el("tr", {}, el("th", { scope: "row" }, el("bdi", {}, truth)), cells, el("td", { class: "total" }, count(total)));
  });
  const head = el("tr", {}, el("th", { scope: "col", class: "corner" }, "truth \\ answer"),
    answers.map((label) => el("th", { scope: "col", class: label === null ? "no-answer" : "" },
      el("span", {}, el("bdi", {}, label ?? "no answer")))), el("th", { scope: "col" }, el("span", {}, "rows")));
  const node = table(`Confusion of ${name}`, head, [lines], { class: "confusion" });
  moveWithArrows(node);
  return node;
}

// One stop of the Tab key for the whole matrix; the arrows move between its filled cells.
function moveWithArrows(node) {
  const buttons = [...node.querySelectorAll("td button")];
  if (buttons.length) buttons[0].tabIndex = 0;
  node.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const cell = event.target.closest("td");
    if (!step || !cell) return;
    event.preventDefault();
    const rows = [...node.querySelectorAll("tbody tr")];
    let [row, column] = [rows.indexOf(cell.parentElement) + step[0], cell.cellIndex + step[1]];
    for (; rows[row]?.cells[column]; row += step[0], column += step[1]) {
      const next = rows[row].cells[column].querySelector("button");
      if (next) {
        buttons.forEach((button) => { button.tabIndex = -1; });
        next.tabIndex = 0;
        next.focus();
        return;
      }
    }
  });
}
