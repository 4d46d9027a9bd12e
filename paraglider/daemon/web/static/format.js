// Numbers, times and elements, as the page writes them. What is not known is a dash.

export const NONE = "–";

const whole = new Intl.NumberFormat("en");

function scaled(value, units, base) {
  let number = value;
  let unit = 0;
  while (number >= base && unit < units.length - 1) {
    number /= base;
    unit += 1;
  }
  const digits = unit === 0 || number >= 100 ? 0 : number >= 10 ? 1 : 2;
  return number.toFixed(digits) + units[unit];
}

/** 9,999 as it is, more as 10.0k, 1.23M. */
export function count(value) {
  if (value == null) return NONE;
  return value < 10000 ? whole.format(value) : scaled(value, ["", "k", "M", "G", "T"], 1000);
}

export function bytes(value) {
  return value == null ? NONE : scaled(value, [" B", " kB", " MB", " GB", " TB", " PB"], 1000);
}

/** So many a second: with a digit after the point where that says something. */
export function rate(value) {
  if (value == null) return NONE;
  return value > 0 && value < 10 ? value.toFixed(1) : count(Math.round(value));
}

export function share(value) {
  return value == null ? NONE : `${(value * 100).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`;
}

/** How long: the two largest units. */
export function span(seconds) {
  if (seconds == null) return NONE;
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  let left = Math.floor(seconds);
  const words = [];
  for (const [unit, size] of units) {
    if (words.length === 2) break;
    const number = Math.floor(left / size);
    if (number > 0 || words.length === 1 || unit === "s") words.push(`${number}${unit}`);
    left -= number * size;
  }
  return words.slice(0, 2).join(" ");
}

export function took(seconds) {
  return seconds == null ? NONE : seconds < 1 ? `${(seconds * 1000).toFixed(1)} ms` : `${seconds.toFixed(1)} s`;
}

/** An element with attributes and children; text is text, never markup. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value != null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export function symbol(name) {
  const space = "http://www.w3.org/2000/svg";
  const made = document.createElementNS(space, "svg");
  made.setAttribute("class", "symbol");
  made.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#${name}`);
  made.append(use);
  return made;
}

/** Change what differs, so that a selection or a focus stays. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
