"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const all = data.entries;
const by = (id) => document.getElementById(id);
const filters = by("filters"), view = by("view"), stage = by("stage"), cards = by("cards");
const SIGNS = { video: "▶", audio: "♪", text: "¶", "3d": "◈", other: "□", image: "▣" };
let shown = all, now = -1, isBeside = false;

// Every text goes into the page as text, never as HTML: anyone may have written a prompt or a name.
function make(tag, text, props) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, props);
}

function card(entry) {
  const made = make("button", undefined, { className: "card", type: "button" });
  const poster = make("div", undefined, { className: "poster" });
  if (entry.poster) poster.append(make("img", undefined, { src: entry.poster, alt: "", loading: "lazy", decoding: "async" }));
  else if (entry.kind === "image" && entry.state === "whole") {
    const whole = make("img", undefined, { src: entry.src, alt: "", loading: "lazy", decoding: "async" });
    whole.onerror = () => whole.replaceWith(make("span", SIGNS.image));
    poster.append(whole);
  } else if (entry.reason || entry.text) poster.append(make("pre", (entry.reason || entry.text).slice(0, 400)));
  else poster.append(make("span", SIGNS[entry.kind] || SIGNS.other));
  const length = entry.length ? `${entry.length.toFixed(1)} s` : "";
  if (entry.reason) poster.append(make("em", "✗ failed"));
  else if (entry.kind !== "image") poster.append(make("em", `${SIGNS[entry.kind] || ""} ${length}`.trim()));
  const words = make("div", undefined, { className: "words" });
  const name = entry.saved_as.split("/").pop();
  words.append(make("strong", name || entry.label || entry.model), make("span", entry.prompt || (name && entry.label) || entry.model));
  const take = entry.take > 1 ? `take ${entry.take}` : "";
  words.append(make("span", [take, entry.cost, (entry.prompt || (name && entry.label)) && entry.model].filter(Boolean).join(" · ")));
  made.append(poster, words);
  made.title = entry.prompt || entry.model;
  made.addEventListener("click", () => open(entry));
  return made;
}

function player(entry) {
  const figure = make("figure");
  const missing = () => figure.replaceChildren(make("p", "This file cannot be shown: it is missing, or its link has ended.", { className: "missing" }));
  if (entry.reason) figure.append(make("p", entry.reason, { className: "missing" }));
  else if (!entry.src && entry.name) figure.append(make("p", "This storage has no links to files.", { className: "missing" }));
  else if (!entry.src) figure.append(make("pre", entry.text));
  else if (entry.kind === "image") figure.append(make("img", undefined, { src: entry.src, alt: entry.prompt || entry.model, onerror: missing }));
  else if (entry.kind === "video" || entry.kind === "audio") {
    const media = make(entry.kind, undefined, { src: entry.src, controls: true, preload: "metadata", onerror: missing });
    if (entry.poster) media.poster = entry.poster;
    figure.append(media);
  } else {
    if (entry.poster) figure.append(make("img", undefined, { src: entry.poster, alt: "" }));
    figure.append(make("a", `${SIGNS[entry.kind] || SIGNS.other} download ${entry.name.split("/").pop()}`, { className: "file", href: entry.src, download: "" }));
  }
  figure.append(make("figcaption", `take ${entry.take}${entry.seed !== null ? `, seed ${entry.seed}` : ""}`));
  return figure;
}

function facts(entry) {
  const list = make("dl");
  const add = (name, value) => { if (value !== "" && value !== null && value !== undefined) list.append(make("dt", name), make("dd", String(value))); };
  add("model", entry.model);
  add("cost", entry.cost);
  for (const [name, value] of Object.entries(entry.params)) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    if (!text.includes("sha256:")) add(name, text);  // files are shown below
  }
  add("made", entry.made);
  add("task ran", entry.seconds === null ? "" : `${entry.seconds} s`);
  add("label", entry.label);
  add("run", entry.run_name ? `${entry.run_name} (${entry.run})` : entry.run);
  add("task", entry.task);
  add("size", entry.size);
  add("saved as", entry.saved_as);
  add("file", entry.name);
  return list;
}

function row(title, entries) {
  if (!entries.length) return [];
  const made = make("div", undefined, { className: "row" });
  made.append(...entries.map(card));
  return [make("h3", title), made];
}

const takes = (entry) => all.filter((one) => one.request === entry.request && one.model === entry.model);

function draw() {
  const entry = shown[now];
  const beside = takes(entry).sort((one, other) => one.take - other.take);
  stage.replaceChildren(...(isBeside ? beside : [entry]).map(player));
  by("facts").replaceChildren(facts(entry),
    ...row("Made from", all.filter((one) => one.sha && entry.sources.includes(one.sha))),
    ...row("Used in", all.filter((one) => entry.sha && one.sources.includes(entry.sha))));
  history.replaceState(null, "", entry.task ? `#${entry.task}` : location.pathname + location.search);
  by("beside").hidden = beside.length < 2;
  by("save").hidden = !entry.src;
  if (entry.src) Object.assign(by("save"), { href: entry.src, download: (entry.saved_as || entry.name).split("/").pop() });
}

function open(entry) {
  if (!shown.includes(entry)) { filters.reset(); filter(); }
  now = shown.indexOf(entry);
  isBeside = false;
  draw();
  if (!view.open) view.showModal();
  view.scrollTop = 0;
}

function move(by_) {
  now = (now + by_ + shown.length) % shown.length;
  draw();
}

function filter() {
  const wanted = Object.fromEntries(new FormData(filters));
  const words = wanted.words.toLowerCase().split(/\s+/).filter(Boolean);
  shown = all.filter((one) =>
    words.every((word) => one.found.includes(word)) &&
    (!wanted.run || one.run === wanted.run) && (!wanted.model || one.model === wanted.model) &&
    (!wanted.kind || one.kind === wanted.kind) && (!wanted.state || one.state === wanted.state) &&
    (!wanted.since || one.made.slice(0, 10) >= wanted.since) && (!wanted.until || one.made.slice(0, 10) <= wanted.until));
  cards.replaceChildren(...shown.map(card));
  const sums = new Map(), tasks = new Set();
  for (const one of shown) {
    const task = one.task || one.request;
    if (tasks.has(task)) continue;
    if (one.amounts.length) tasks.add(task);
    for (const [unit, amount] of one.amounts) sums.set(unit, (sums.get(unit) || 0) + Number(amount));
  }
  const cost = [...sums].map(([unit, sum]) => `${unit === "coins" ? Number(sum.toFixed(2)) : sum.toFixed(2)} ${unit}`).join(" + ");
  by("sum").textContent = `${shown.length} of ${all.length} outputs${cost ? `; their tasks cost ${cost}` : ""}`;
}

function options(name, pairs) {
  const unique = [...new Map(pairs.filter(([value]) => value))].sort((one, other) => one[1].localeCompare(other[1]));
  filters.elements[name].append(...unique.map(([value, text]) => make("option", text, { value })));
}

for (const one of all) one.made = one.at && new Date(one.at).toLocaleString("sv");  // local time, as in 2026-01-31 23:59:59
for (const one of all) one.found = [one.prompt, one.label, one.model, one.saved_as, one.text, one.reason, JSON.stringify(one.params)].join(" ").toLowerCase();
by("title").textContent = data.title;
by("place").textContent = data.about;
for (const page of data.pages) by("pages").append(page.href ? make("a", page.name, { href: page.href }) : make("b", page.name));
options("run", all.map((one) => [one.run, one.run_name || one.run]));
options("model", all.map((one) => [one.model, one.model]));
options("kind", all.map((one) => [one.kind, one.kind]));
options("state", all.map((one) => [one.state, one.state]));
filters.addEventListener("input", filter);
filters.addEventListener("reset", () => setTimeout(filter));
filters.addEventListener("submit", (event) => event.preventDefault());
by("before").addEventListener("click", () => move(-1));
by("after").addEventListener("click", () => move(1));
by("close").addEventListener("click", () => view.close());
by("beside").addEventListener("click", () => { isBeside = !isBeside; draw(); });
view.addEventListener("close", () => {
  if (view.open) return;  // another output was opened before this event came
  stage.replaceChildren();
  history.replaceState(null, "", location.pathname + location.search);
});
document.addEventListener("keydown", (event) => {
  if (!view.open || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("video, audio")) return;
  if (event.key === "ArrowLeft") move(-1);
  else if (event.key === "ArrowRight") move(1);
  else if (event.key === "t" && !by("beside").hidden) by("beside").click();
  else if (event.key === "d" && !by("save").hidden) by("save").click();
});
filter();
const wanted = all.find((one) => one.task && location.hash === `#${one.task}`);
if (wanted) open(wanted);
