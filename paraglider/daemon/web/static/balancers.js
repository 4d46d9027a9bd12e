// This and other balancers (`stats.peers`): a line for each service at each of them, and for each that does not answer.

import { NONE, count, element, put, rate, symbol } from "./format.js";
import { fill, head, keyed, two } from "./tables.js";

const COLUMNS = [
  ["node", "Balancer", (cell, row) => two(cell, row.node, row.version ?? "")],
  ["health", "Health", (cell, row) => {
    const state = row.error ? "down" : row.draining ? "drain" : row.health === "unhealthy" ? "down" : "ready";
    const words = row.error ? "no answer" : row.health;
    if (cell.dataset.state === state && cell.textContent === words) return;
    cell.dataset.state = state;
    cell.replaceChildren(element("span", { class: "state" }, symbol(state), element("b", {}, words)));
  }],
  ["announced", "Announced", (cell, row) => two(cell, row.announced == null ? NONE : row.announced ? "yes" : "no", "")],
  ["ready", "Ready", (cell, row) => two(cell, row.ready == null ? NONE : `${row.ready}/${row.backends}`, ""), "number"],
  ["flows", "Flows", (cell, row) => two(cell, count(row.flows), "", row.flows), "number"],
  ["rate", "New/s", (cell, row) => two(cell, rate(row.conns_per_second), ""), "number"],
  ["fingerprint", "Fingerprint", (cell, row) => two(cell, row.fingerprint ?? NONE, "")],
  ["differs", "Differs", (cell, row) => {
    const words = row.error ?? row.differs.join(", ");
    two(cell, words, "");
    cell.classList.toggle("bad", words !== "");
  }],
];

export class Balancers {
  constructor(section, table) {
    this.section = section;
    this.body = element("tbody");
    this.waiting = false;
    table.append(head(COLUMNS, [element("th", { scope: "col", "data-column": "service" }, "Service")]), this.body);
  }

  /** Ask for the rows, unless the last answer is still to come. */
  async ask() {
    if (this.waiting) return;
    this.waiting = true;
    try {
      const answer = await fetch("/api/v1/peers");
      if (answer.ok) this.show(await answer.json());
    } catch {
      // The stream tells that the balancer is away.
    } finally {
      this.waiting = false;
    }
  }

  show({ nodes, services }) {
    const of = new Map(nodes.map((row) => [row.node, row]));
    const silent = nodes.filter((row) => row.error).map((row) => ({ ...row, service: NONE }));
    const rows = [...services.map((row) => ({ ...of.get(row.node), ...row })), ...silent];
    const lines = keyed(this.body, rows.map((row) => `${row.service} ${row.node}`), (key) => this.line(key));
    rows.forEach((row, i) => {
      put(lines[i].firstChild.firstChild, row.service);
      fill(COLUMNS, lines[i], row);
    });
    this.section.hidden = false;
  }

  line(key) {
    return element("tr", { "data-key": key }, element("th", { scope: "row" }, element("span", { class: "mono" })));
  }
}
