// The page: a stream of samples in, tables and charts out. Nothing here decides anything.

import { Change } from "./admin.js";
import { Balancers } from "./balancers.js";
import { Charts } from "./charts.js";
import { bytes, count, element, put, rate } from "./format.js";
import { Services, Workers } from "./tables.js";

const LATE = 4000; // milliseconds without a sample after which the numbers count as old
const AGAIN = 3000;
const THEMES = ["auto", "dark", "light"];
const by = (id) => document.getElementById(id);

const charts = new Charts();
const change = new Change();
const services = new Services(by("services"), choose, (row) => change.open(row));
const workers = new Workers(by("workers"), by("others"));
const balancers = new Balancers(by("peers"), by("balancers"));
let last = null;
let heard = 0;

function show(sample) {
  last = sample;
  put(by("host"), sample.host);
  put(by("version"), `Paraglider ${sample.version}`);
  document.title = `${sample.health.healthy ? "" : "! "}${sample.host} · Paraglider`;
  const health = by("health");
  const { healthy, draining, status } = sample.health;
  const words = draining && status !== "draining" ? `${status}, draining` : status;
  put(health, healthy ? words : `${words}: ${sample.health.problems.length}`);
  health.title = draining ? "Not to be announced until `paraglider node ready`" : "";
  health.classList.toggle("bad", !healthy);
  health.classList.toggle("good", healthy && !draining);
  const problems = by("problems");
  problems.hidden = sample.health.healthy;
  if (problems.dataset.said !== sample.health.problems.join("\n")) {
    problems.dataset.said = sample.health.problems.join("\n");
    problems.replaceChildren(...sample.health.problems.map((text) => element("li", {}, text)));
  }
  totals(sample);
  subjects(sample);
  services.show(sample, by("filter").value.trim());
  workers.show(sample);
}

// Every other second: the balancers are asked no more often.
function ask(sample) {
  if (sample.peers && Math.round(sample.at) % 2 === 0) balancers.ask();
}

function totals(sample) {
  const { totals: all, backends } = sample;
  const carriers = sample.workers.filter((row) => row.role.endsWith("worker"));
  const ready = backends.filter((row) => row.state === "ready" && row.weight > 0).length;
  const perSecond = (value) => (value == null ? "–" : `${bytes(value)}/s`);
  const tiles = [
    ["New flows/s", rate(all.flows_per_second), `${count(all.conns)} in all`],
    ["Live flows", count(all.flows), `in ${sample.services.length} services`],
    ["To backends", perSecond(all.bytes_in_per_second), `${rate(all.packets_in_per_second)} packets/s`],
    ["To clients", perSecond(all.bytes_out_per_second), `${rate(all.packets_out_per_second)} packets/s`],
    ["Backends", `${ready}/${backends.length}`, "take new flows"],
    ["Workers", `${carriers.filter((row) => row.up).length}/${carriers.length}`, "serve"],
  ];
  const parent = by("totals");
  if (!parent.children.length) {
    parent.append(...tiles.map(([name]) => element("div", { class: "tile" }, element("dt", {}, name), element("dd"), element("small"))));
  }
  tiles.forEach(([, value, small], i) => {
    put(parent.children[i].children[1], value);
    put(parent.children[i].children[2], small);
  });
}

function subjects(sample) {
  const select = by("subject");
  const names = sample.services.map((row) => row.service);
  if (select.dataset.names === names.join(" ")) return;
  select.dataset.names = names.join(" ");
  select.replaceChildren(element("option", { value: "" }, "all services"), ...names.map((name) => element("option", { value: name }, name)));
  if (charts.subject && !names.includes(charts.subject)) charts.choose("");
  select.value = charts.subject;
}

function choose(name) {
  by("subject").value = name;
  charts.choose(name);
  by("charts-title").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

function listen() {
  const stream = new EventSource("/events");
  stream.addEventListener("sample", (event) => {
    const sample = JSON.parse(event.data);
    heard = performance.now();
    charts.add(sample);
    show(sample);
    ask(sample);
    age();
  });
  stream.addEventListener("error", () => {
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN);
  });
}

function age() {
  const live = by("live");
  const old = performance.now() - heard > LATE;
  put(live, !last ? "connecting" : old ? `last heard ${new Date(last.at * 1000).toLocaleTimeString()}` : "live");
  live.classList.toggle("bad", old && last != null);
  document.body.classList.toggle("stale", old && last != null);
}

function paint(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  put(by("theme"), `Theme: ${theme}`);
  localStorage.setItem("paraglider-theme", theme);
  charts.draw();
}

function nextTheme() {
  paint(THEMES[(THEMES.indexOf(localStorage.getItem("paraglider-theme") ?? "auto") + 1) % THEMES.length]);
}

by("theme").addEventListener("click", nextTheme);
by("subject").addEventListener("change", (event) => charts.choose(event.target.value));
by("filter").addEventListener("input", () => last && show(last));
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, dialog")) {
    if (event.key === "Escape" && event.target === by("filter")) event.target.blur();
    return;
  }
  if (event.key === "/") {
    event.preventDefault();
    by("filter").focus();
  } else if (event.key === "t") nextTheme();
  else if (event.key === "c") by("subject").focus();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.draw());
setInterval(age, 1000);
paint(THEMES.includes(localStorage.getItem("paraglider-theme")) ? localStorage.getItem("paraglider-theme") : "auto");
listen();
