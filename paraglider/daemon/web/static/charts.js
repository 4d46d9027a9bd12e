// The charts: the last quarter of an hour, kept by the server and carried on from the samples.
/* global uPlot */

import { bytes, rate, count } from "./format.js";

const SPAN = 15 * 60;
const HEIGHT = 160;
const MOST_LINES = 8;
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3]];
const CHARTS = [
  { id: "chart-rate", values: ["flows_per_second"], format: rate },
  { id: "chart-flows", values: ["flows"], format: count },
  {
    id: "chart-bytes",
    values: ["bytes_in_per_second", "bytes_out_per_second"],
    labels: ["to backends", "to clients"],
    format: (value) => (value == null ? "–" : `${bytes(value)}/s`),
  },
];

/** What a colour of the style sheet is now: a canvas knows no variables. */
function color(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

export class Charts {
  constructor() {
    this.subject = "";
    this.at = [];
    this.total = {};
    this.series = new Map();
    this.plots = [];
    this.load(0);
    addEventListener("resize", () => this.resize());
  }

  /** Show `subject`: a service, or all of them. */
  async choose(subject) {
    this.subject = subject;
    await this.load(0);
  }

  async load(tries) {
    const subject = this.subject;
    const query = subject ? `?service=${encodeURIComponent(subject)}` : "";
    const response = await fetch(`/api/v1/history${query}`).catch(() => null);
    if (subject !== this.subject) return;
    if (!response?.ok) {
      if (tries < 10) setTimeout(() => this.load(tries + 1), 2000);
      return;
    }
    const history = await response.json();
    this.at = history.at;
    this.total = history.total;
    this.series = new Map(Object.entries(history.series));
    this.draw();
  }

  /** Carry on with `sample`. */
  add(sample) {
    const last = this.at.at(-1);
    if (last != null && sample.at <= last) return;
    const rows = this.subject
      ? sample.backends.filter((row) => row.service === this.subject).map((row) => [row.backend, row])
      : sample.services.map((row) => [row.service, row]);
    const whole = this.subject
      ? sample.services.find((row) => row.service === this.subject) ?? {}
      : sample.totals;
    const before = this.at.length;
    const cut = this.at.findIndex((at) => at >= sample.at - SPAN);
    const drop = cut < 0 ? before : cut;
    this.at = [...this.at.slice(drop), sample.at];
    const push = (values, row) => {
      for (const { values: names } of CHARTS) {
        for (const name of names) {
          const kept = (values[name] ?? []).slice(drop);
          while (kept.length < this.at.length - 1) kept.unshift(null);
          values[name] = [...kept, row?.[name] ?? null];
        }
      }
    };
    push(this.total, whole);
    const found = new Map(rows);
    const known = this.series.size;
    for (const name of found.keys()) if (!this.series.has(name)) this.series.set(name, {});
    for (const [name, values] of this.series) push(values, found.get(name));
    if (!this.plots.length || known !== this.series.size) this.draw();
    else this.update();
  }

  lines(chart) {
    if (chart.values.length > 1) {
      return chart.values.map((name, i) => [chart.labels[i], this.total[name]]);
    }
    const [name] = chart.values;
    if (this.series.size > MOST_LINES || this.series.size < 2) {
      return [[this.subject || "all", this.total[name]]];
    }
    return [...this.series].map(([label, values]) => [label, values[name]]);
  }

  data(chart) {
    const nothing = this.at.map(() => null);
    return [this.at, ...this.lines(chart).map(([, values]) => values ?? nothing)];
  }

  draw() {
    for (const plot of this.plots) plot.destroy();
    this.plots = CHARTS.map((chart) => this.plot(chart));
  }

  plot(chart) {
    const figure = document.getElementById(chart.id);
    const grid = { stroke: color("--line"), width: 1 };
    const font = "11px system-ui, sans-serif";
    const axis = { stroke: color("--muted"), font, ticks: { show: false }, grid };
    const series = this.lines(chart).map(([label], i) => ({
      label,
      stroke: color(`--chart-${(i % MOST_LINES) + 1}`),
      fill: this.lines(chart).length === 1 ? color("--chart-fill") : undefined,
      width: 1.5,
      dash: DASHES[Math.floor(i / 4) % DASHES.length],
      points: { show: false },
      spanGaps: false,
      // Without a cursor the legend says what is now.
      value: (plot, value, at, i) => chart.format(i == null ? plot.data[at].at(-1) : value),
    }));
    const options = {
      width: figure.clientWidth || 300,
      height: HEIGHT,
      padding: [8, 8, 0, 0],
      cursor: { sync: { key: "time" }, drag: { x: false, y: false }, points: { size: 6 } },
      legend: { live: true },
      scales: {
        x: { range: () => [(this.at.at(-1) ?? Date.now() / 1000) - SPAN, this.at.at(-1) ?? Date.now() / 1000] },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] },
      },
      axes: [
        { ...axis, size: 26, space: 70, values: [[60, "{HH}:{mm}", null, null, null, null, null, null, 1]] },
        {
          ...axis,
          size: 56,
          space: 32,
          values: (_, ticks) => ticks.map((value) => (chart.format === count && value % 1 ? "" : chart.format(value).replace("/s", ""))),
        },
      ],
      series: [{ value: (_, value) => (value == null ? "" : new Date(value * 1000).toLocaleTimeString()) }, ...series],
    };
    return new uPlot(options, this.data(chart), figure);
  }

  update() {
    this.plots.forEach((plot, i) => plot.setData(this.data(CHARTS[i])));
  }

  resize() {
    this.plots.forEach((plot) => plot.setSize({ width: plot.root.parentElement.clientWidth, height: HEIGHT }));
  }
}
