// The tables of services with their backends, and of workers: made once, then only what changes.

import { NONE, bytes, count, element, put, rate, share, span, symbol, took } from "./format.js";

const WORDS = { "drain-down": "drain, down" };
const sum = (...values) => {
  const known = values.filter((value) => value != null);
  return known.length ? known.reduce((a, b) => a + b, 0) : null;
};

// Each column: its name, its heading, and what it puts into its cell. `exact` becomes the tooltip.
const BACKEND = [
  ["state", "State", (cell, row) => {
    const words = WORDS[row.state] ?? row.state;
    if (cell.dataset.state !== row.state) {
      cell.dataset.state = row.state;
      cell.replaceChildren(
        element("span", { class: "state" }, symbol(row.state), element("b", {}, words)),
        element("small"),
        element("span", { class: "bar drain", hidden: true }, element("i")),
      );
    }
    const [, small, bar] = cell.children;
    const drain = row.drain;
    const left = drain?.left == null ? "" : ` · ${count(drain.left)} of ${count(drain.most)} flows left`;
    put(small, `${span(row.seconds)}${left}`);
    bar.hidden = drain?.done == null;
    if (drain?.done != null) bar.firstChild.style.width = `${drain.done * 100}%`;
    cell.title = `${row.why}, since ${new Date(row.since).toLocaleString()}`;
  }],
  ["check", "Last check", (cell, row) => {
    const check = row.check;
    two(cell, check ? `${check.code} ${took(check.took)}` : NONE, check ? `${span(check.seconds)} ago` : "not checked");
    cell.title = check?.detail ?? "";
    cell.classList.toggle("bad", check?.passed === false);
  }],
  ["weight", "Weight", (cell, row) => {
    two(cell, String(row.weight), row.weight === row.configured_weight ? "" : `file: ${row.configured_weight}`);
  }, "number"],
  ["share", "Share of flows", (cell, row) => {
    if (!cell.firstChild) {
      cell.append(
        element("span", { class: "pair" }, element("b"), element("small")),
        element("span", { class: "bar share" }, element("i"), element("u")),
      );
    }
    const [pair, bar] = cell.children;
    put(pair.firstChild, share(row.share));
    put(pair.lastChild, `of ${share(row.weight_share)}`);
    bar.firstChild.style.width = `${(row.share ?? 0) * 100}%`;
    bar.lastChild.style.left = `${row.weight_share * 100}%`;
    cell.title = `${share(row.share)} of recent new flows; ${share(row.weight_share)} by weight`;
  }],
  ["flows", "Flows", (cell, row) => two(cell, count(row.flows), `${count(row.inactive)} inactive, ${row.adopted ? `${count(row.adopted)} adopted, ` : ""}${count(row.conns)} in all`, row.conns), "number"],
  ["flows_per_second", "New/s", (cell, row) => two(cell, rate(row.flows_per_second), ""), "number"],
  ["in", "To backend", (cell, row) => way(cell, row, "in"), "number"],
  ["out", "To client", (cell, row) => way(cell, row, "out"), "number"],
  ["errors", "Errors", (cell, row) => {
    const errors = sum(row.failed_checks, row.refused, row.timeouts, row.resets);
    two(cell, count(errors), row.downs ? `${count(row.downs)}× down` : "");
    cell.title = `checks failed ${row.failed_checks ?? NONE}, refused ${row.refused ?? NONE}, timed out ${row.timeouts ?? NONE}, reset ${row.resets ?? NONE}`;
    cell.classList.toggle("bad", errors > 0);
  }, "number"],
];

const WORKER = [
  ["name", "Worker", (cell, row) => two(cell, row.name, row.up ? `up ${span(row.seconds)}` : "")],
  ["up", "State", (cell, row) => {
    const state = row.up ? "ready" : "down";
    if (cell.dataset.state === state) return;
    cell.dataset.state = state;
    cell.replaceChildren(element("span", { class: "state" }, symbol(state), element("b", {}, row.up ? "up" : "down")));
  }],
  ["core", "Core", (cell, row) => two(cell, row.core == null ? NONE : String(row.core), ""), "number"],
  ["packets", "Packets/s", (cell, row) => two(cell, rate(row.packets_per_second), `${count(row.packets)} in all`, row.packets), "number"],
  ["busy", "Busy", (cell, row) => gauge(cell, row.busy, share(row.busy), "")],
  ["queue", "Queue", (cell, row) => {
    // Established traffic and openings wait apart: the fuller of the two is what matters.
    const queues = queuesOf(row).filter(Boolean).map(q => [q.waiting / q.length, q]).sort((a, b) => b[0] - a[0]);
    const [part, queue] = queues[0] || [null, null];
    gauge(cell, part, queue ? count(queue.waiting) : NONE, queue ? `of ${count(queue.length)}` : "");
  }],
  ["drops", "Drops", (cell, row) => {
    const all = queuesOf(row), queues = all.filter(Boolean);
    const drops = queues.length ? queues.reduce((sum, queue) => sum + queue.overflows + queue.overruns, 0) : null;
    two(cell, count(drops), "");
    cell.classList.toggle("bad", drops > 0);
    cell.title = ["established", "openings", "offloaded", "tunnels"].map((name, at) => [name, all[at]]).filter(([, queue]) => queue)
      .map(([name, queue]) => `${name}: queue full ${queue.overflows}, reader too slow ${queue.overruns}`).join("; ");
  }, "number"],
  ["bound", "Flows", (cell, row) => gauge(cell, row.active != null && row.bound ? row.active / row.bound : null, count(row.active), row.bound ? `of ${count(row.bound)}` : "")],
];

function queuesOf(row) {
  return [row.queue, row.openings, row.offloaded, row.tunnels];
}

export function two(cell, main, small, exact) {
  if (!cell.firstChild) cell.append(element("b"), element("small"));
  put(cell.firstChild, main);
  put(cell.lastChild, small);
  if (exact != null) cell.title = String(exact);
}

function way(cell, row, to) {
  const speed = row[`bytes_${to}_per_second`];
  const packets = row[`packets_${to}_per_second`];
  const total = row[`packets_${to}`];
  const parts = [bytes(row[`bytes_${to}`]), total == null ? null : `${count(total)} p`];
  two(
    cell,
    [speed == null ? NONE : `${bytes(speed)}/s`, packets == null ? null : `${rate(packets)} p/s`].filter(Boolean).join(" · "),
    row[`bytes_${to}`] == null && total == null ? "not seen here" : parts.filter(Boolean).join(" · "),
  );
  cell.title = `${row[`bytes_${to}`] ?? NONE} bytes, ${total ?? NONE} packets`;
}

function gauge(cell, part, main, small) {
  if (!cell.firstChild) {
    cell.append(element("span", { class: "pair" }, element("b"), element("small")), element("span", { class: "bar" }, element("i")));
  }
  const [pair, bar] = cell.children;
  put(pair.firstChild, main);
  put(pair.lastChild, small);
  bar.firstChild.style.width = `${Math.min(part ?? 0, 1) * 100}%`;
  bar.classList.toggle("full", part > 0.9);
}

export function head(columns, first) {
  const cells = columns.map(([name, heading, , kind]) => element("th", { scope: "col", "data-column": name, class: kind }, heading));
  return element("thead", {}, element("tr", {}, ...first, ...cells));
}

export function fill(columns, line, row) {
  for (const [name, heading, show, kind] of columns) {
    let cell = line.querySelector(`:scope > [data-field="${name}"]`);
    if (!cell) {
      cell = element("td", { "data-field": name, "data-label": heading, class: kind });
      line.append(cell);
    }
    show(cell, row);
  }
}

/** Keep one child of `parent` a key, in the order of `keys`. */
export function keyed(parent, keys, make) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = keys.map((key) => there.get(key) ?? make(key));
  if (wanted.length !== parent.children.length || wanted.some((child, i) => parent.children[i] !== child)) {
    parent.replaceChildren(...wanted);
  }
  return wanted;
}

// A worker decides though the file would have the kernel do it.
function undecided(service) {
  return service.decided_by === "python" && service.decide !== "python";
}

function carrier(service) {
  const by = service.carrier;
  if (by !== "bpf" && by !== "xdp") return "";
  if (service.decided_by === "kernel") return ` (${by}, kernel decides)`;
  return undecided(service) ? ` (${by}, worker decides)` : ` (${by})`;
}

export class Services {
  constructor(parent, chart, change) {
    this.parent = parent;
    this.chart = chart;
    this.change = change;
  }

  show(sample, filter) {
    const cards = keyed(this.parent, sample.services.map((row) => row.service), (name) => this.card(name));
    sample.services.forEach((service, i) => {
      const rows = sample.backends.filter((row) => row.service === service.service);
      this.fill(cards[i], service, rows, sample.admin, filter);
    });
  }

  card(name) {
    const body = element("tbody");
    const chart = element("button", { type: "button", class: "name", title: "Show in the charts" }, name);
    chart.addEventListener("click", () => this.chart(name));
    return element(
      "article",
      { class: "card service", "data-key": name },
      element("header", {}, element("h3", {}, chart), element("span", { class: "where" }), element("span", { class: "sums" })),
      element("table", {}, head(BACKEND, [element("th", { scope: "col", "data-column": "backend" }, "Backend")]), body),
    );
  }

  fill(card, service, rows, admin, filter) {
    const [name, where, sums] = card.querySelector("header").children;
    const host = service.vip.includes(":") ? `[${service.vip}]` : service.vip;
    put(where, `${service.protocol} ${host}:${service.ports} · ${service.forward}${carrier(service)} · ${service.strategy}`);
    where.title = undecided(service) ? `a worker decides: ${service.why_python}` : "";
    put(sums, `${service.ready} of ${service.backends} ready · ${count(service.flows)} flows · ${rate(service.flows_per_second)} new/s`);
    card.classList.toggle("out", service.ready === 0);
    name.firstChild.setAttribute("aria-label", `${service.service}: show in the charts`);
    const chosen = rows.filter((row) => `${service.service} ${row.backend} ${row.state}`.includes(filter));
    card.hidden = filter !== "" && chosen.length === 0;
    const lines = keyed(card.querySelector("tbody"), chosen.map((row) => row.backend), (key) => this.line(key));
    chosen.forEach((row, i) => {
      fill(BACKEND, lines[i], row);
      lines[i].dataset.state = row.state;
      const button = lines[i].querySelector("th button");
      if (admin && !button) {
        const made = element("button", { type: "button", class: "edit", "aria-label": `Change ${row.backend}` }, "Change");
        made.addEventListener("click", () => this.change(lines[i].row));
        lines[i].firstChild.append(made);
      }
      lines[i].row = row;
    });
  }

  line(name) {
    return element("tr", { "data-key": name }, element("th", { scope: "row" }, element("span", { class: "mono" }, name)));
  }
}

export class Workers {
  constructor(table, others) {
    this.body = element("tbody");
    this.others = others;
    table.append(head(WORKER, []), this.body);
  }

  show(sample) {
    const carriers = sample.workers.filter((row) => row.role.endsWith("worker"));
    const lines = keyed(this.body, carriers.map((row) => row.name), (key) => element("tr", { "data-key": key }));
    carriers.forEach((row, i) => fill(WORKER, lines[i], row));
    const rest = sample.workers.filter((row) => !row.role.endsWith("worker"));
    put(this.others, `Beside them: ${rest.map((row) => `${row.name} ${row.up ? `up ${span(row.seconds)}` : "down"}`).join(" · ")}`);
  }
}
