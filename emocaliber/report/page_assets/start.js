// Keys, theme, and the order in which the page draws itself.

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isTyping = event.target.matches("input:not([type=checkbox]), select, textarea");
    if (event.key === "Escape") escape(event);
    else if (!isTyping && act(event.key, event.target)) event.preventDefault();
  });
}

function act(key, target) {
  const inList = target === byId("list");
  const page = Math.max(1, Math.floor(byId("list").clientHeight / ROW_HEIGHT) - 1);
  const steps = { j: 1, k: -1, ...(inList ? { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page } : {}) };
  if (key in steps) {
    select(selected + steps[key]);
    byId("list").scrollIntoView({ block: "nearest" });
  } else if (inList && (key === "Home" || key === "End")) select(key === "Home" ? 0 : found.rows.length - 1);
  else if (key === "/") {
    byId("filters").scrollIntoView({ block: "nearest" });
    byId("search").focus({ preventScroll: true });
  } else if (key === "?") toggleHelp();
  else return false;
  return true;
}

function escape(event) {
  const search = byId("search");
  if (!byId("key-help").hidden) toggleHelp(false);
  else if (event.target === search && search.value) {
    event.preventDefault();
    apply({ text: "" });
  } else if (event.target === search) byId("list").focus({ preventScroll: true });
}

function toggleHelp(isShown = byId("key-help").hidden) {
  byId("key-help").hidden = !isShown;
  byId("keys").setAttribute("aria-expanded", String(isShown));
}

const THEMES = ["auto", "light", "dark"];

function stored(key, value) {
  try { // a page opened from a file may have no storage
    if (value === undefined) return localStorage.getItem(key);
    localStorage.setItem(key, value);
  } catch {
    // Then the choice lasts as long as the page.
  }
  return null;
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
}

function start() {
  const kept = stored("emocaliber-theme");
  setTheme(THEMES.includes(kept) ? kept : "auto");
  byId("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
    setTheme(next);
    stored("emocaliber-theme", next);
  });
  byId("keys").addEventListener("click", () => toggleHelp());
  drawRun();
  if (DATA.has_truth) { // the page of predictions alone has no place for numbers
    drawScores();
    choose(showRows);
    drawConfusion(showRows);
    drawAccounts(showRows);
  }
  document.documentElement.dataset.truth = String(DATA.has_truth);
  drawSamples();
  document.documentElement.dataset.ready = "true";
}

start();
