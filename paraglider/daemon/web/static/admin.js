// The dialog that changes a backend, where the server allows it: with a token, from this page alone.

import { put } from "./format.js";

const KEY = "paraglider-token";

export class Change {
  constructor() {
    this.dialog = document.getElementById("change");
    this.form = document.getElementById("change-form");
    this.error = document.getElementById("change-error");
    this.token = document.getElementById("change-token");
    this.weight = document.getElementById("change-weight");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.apply();
    });
    document.getElementById("change-cancel").addEventListener("click", () => this.dialog.close());
  }

  open(row) {
    this.row = row;
    put(document.getElementById("change-title"), `${row.service} / ${row.backend}`);
    put(this.error, "");
    this.was = { state: row.state.startsWith("drain") ? "drain" : row.state === "maint" ? "maint" : "ready", weight: row.weight };
    this.form.elements.state.value = this.was.state;
    this.weight.value = row.weight;
    this.token.value = sessionStorage.getItem(KEY) ?? "";
    this.dialog.showModal();
  }

  async apply() {
    const wanted = { state: this.form.elements.state.value, weight: Number(this.weight.value) };
    const body = Object.fromEntries(Object.entries(wanted).filter(([key, value]) => value !== this.was[key]));
    if (!Object.keys(body).length) {
      this.dialog.close();
      return;
    }
    const path = [this.row.service, this.row.backend].map(encodeURIComponent).join("/");
    const response = await fetch(`/api/v1/backends/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Paraglider-Token": this.token.value },
      body: JSON.stringify(body),
    }).catch(() => null);
    const answer = await response?.json().catch(() => null);
    if (response?.ok) {
      sessionStorage.setItem(KEY, this.token.value);
      this.dialog.close();
    } else {
      put(this.error, answer ? [answer.error, answer.remedy].filter(Boolean).join("; ") : "no answer");
    }
  }
}
