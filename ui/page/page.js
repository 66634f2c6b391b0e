// The panels. When a field of a panel changes, it sends a request to the server and shows the answer.

import { Drop, ask, className, fillSelects, labelOf, make, seedOf } from "/parts.js";
import { Mask } from "/mask.js";

const FRAMES = 17; // pictures of an interpolation

/**
 * A section with fields, pictures and facts.
 * request(): returns the fields of the request, or null while something is missing.
 * facts: name of a fact → a function that returns it from the answer.
 */
class Panel {
  version = 0; // increased when the answer to the current request is no longer needed

  constructor(id, task, request, facts = {}) {
    Object.assign(this, { task, request, section: document.getElementById(id) });
    this.form = this.section.querySelector("form");
    this.fields = this.form.elements;
    this.error = make("p", { className: "error", role: "alert" });
    const milliseconds = (answer) => answer.milliseconds.toFixed(answer.milliseconds < 10 ? 1 : 0);
    const all = {
      "network calls (NFE)": (answer) => answer.nfe,
      milliseconds,
      ...facts,
      program: (answer) => answer.schedule,
    };
    this.facts = Object.entries(all);
    const cells = this.facts.map(([name]) => {
      const className = name === "program" ? "program" : "";
      return make("div", { className }, make("dt", {}, name), make("dd", {}, "–"));
    });
    this.form.after(this.error);
    this.section.append(make("div", { className: "bar" }), make("dl", { className: "facts" }, ...cells));
    this.values = cells.map((cell) => cell.lastChild);
    this.form.onsubmit = (event) => { event.preventDefault(); this.run(); };
    this.form.onchange = () => this.run();
    const next = this.form.querySelector("[data-next]");
    if (next) next.onclick = () => {
      this.fields.seed.value = Number(this.fields.seed.value) + 1;
      this.run();
    };
  }

  /** Send the request and show the answer. Of requests made meanwhile, only the last one is sent. */
  async run() {
    this.again = true;
    if (this.section.ariaBusy === "true") return;
    this.section.ariaBusy = "true";
    while (this.again) {
      this.again = false;
      const version = this.version;
      try {
        const fields = this.request();
        const answer = fields && (await ask(this.task, fields));
        if (this.again || version !== this.version) continue;
        this.fail("");
        if (answer) this.show(answer);
      } catch (error) {
        this.fail(error.message);
      }
    }
    this.section.ariaBusy = "false";
  }

  /** Show the pictures and facts of an answer. */
  show(answer) {
    const images = this.section.querySelectorAll("[data-picture]");
    for (const image of images) image.src = answer[image.dataset.picture];
    this.facts.forEach(([, value], k) => { this.values[k].textContent = value(answer); });
  }

  /** Show an error message; "" removes it. */
  fail(message) { this.error.textContent = message && message[0].toUpperCase() + message.slice(1); }

  /** A frame for a picture. select: the field of its label. changed: as in Drop. */
  drop(name, select, model, changed) {
    const frame = this.section.querySelector(`[data-drop=${name}]`);
    const failed = (error) => this.fail(error.message);
    return new Drop(frame, model, { label: () => labelOf(select), changed, failed });
  }
}

/** A fact: the labels of an answer, and the network calls that it took to guess them. */
const guessed = (model, names) => (answer) => {
  const labels = names.map((name) => className(model, answer[name])).join(", ");
  return labels + (answer.guess_nfe ? ` (guessed in ${answer.guess_nfe} calls)` : "");
};
const percent = (share) => `${(100 * share).toFixed(0)} %`;

function generate() {
  const request = () => ({ seed: seedOf(seed), label: labelOf(label), schedule: schedule.value });
  const panel = new Panel("generate", "generate", request);
  const { seed, label, schedule } = panel.fields;
  panel.run();
}

function reconstruct(model) {
  const request = () => picture.picture && {
    picture: picture.picture,
    seed: seedOf(seed),
    label: labelOf(label),
    inversion: inversion.value,
    schedule: schedule.value,
  };
  const facts = { "mean squared error": (answer) => answer.mse.toFixed(5) };
  if (model.classes !== null) facts.label = guessed(model, ["label"]);
  const panel = new Panel("reconstruct", "reconstruct", request, facts);
  const { seed, label, inversion, schedule } = panel.fields;
  const picture = panel.drop("picture", label, model, () => panel.run());
}

function restyle(model) {
  // Without two classes, the panel cannot be used.
  const tab = document.getElementById("tab-restyle");
  tab.hidden = model.classes === null || model.classes < 2;
  if (tab.hidden) {
    if (tab.ariaSelected === "true") document.querySelector("[role=tab]").click();
    return;
  }
  const request = () => {
    if (!picture.picture) throw new Error("no picture yet: drop, choose or make one");
    return {
      picture: picture.picture,
      seed: seedOf(seed),
      label: labelOf(label),
      to: labelOf(to),
      inversion: inversion.value,
      schedule: schedule.value,
    };
  };
  const facts = { label: guessed(model, ["label"]), "redrawn as": ({ to }) => className(model, to) };
  const panel = new Panel("restyle", "restyle", request, facts);
  const { seed, label, to, inversion, schedule } = panel.fields;
  to.value = "1";
  panel.form.onchange = () => picture.picture && panel.run();
  const picture = panel.drop("picture", label, model, (made) => {
    if (made !== null && String(made) === to.value) to.value = String((made + 1) % model.classes);
    panel.run();
  });
}

function between(model) {
  const request = () => a.picture && b.picture && {
    a: a.picture,
    b: b.picture,
    seed: seedOf(seed),
    label: labelOf(label),
    label_b: labelOf(label_b),
    frames: FRAMES,
  };
  const facts = model.classes === null ? {} : { labels: guessed(model, ["label", "label_b"]) };
  const panel = new Panel("between", "interpolate", request, facts);
  const { seed, label, label_b } = panel.fields;
  const frame = document.getElementById("frame"), slider = document.getElementById("slider");
  let frames = [];
  const turn = () => {
    if (frames.length) frame.src = frames[slider.value];
    slider.ariaValueText = `${slider.value} of ${FRAMES - 1} steps from left to right`;
  };
  slider.max = FRAMES - 1;
  slider.oninput = turn;
  panel.show = (answer) => {
    Panel.prototype.show.call(panel, answer);
    frames = answer.frames;
    slider.disabled = false;
    turn();
  };
  const a = panel.drop("a", label, model, () => panel.run());
  const b = panel.drop("b", label_b, model, () => panel.run());
}

function fill(model) {
  const request = () => {
    if (!picture.picture) throw new Error("no picture yet: drop, choose or make one");
    return { picture: picture.picture, mask: mask.rows, seed: seedOf(seed), label: labelOf(label) };
  };
  const panel = new Panel("fill", "inpaint", request, { "filled in": (answer) => percent(answer.filled) });
  const { seed, label, brush, erase } = panel.fields;
  const result = panel.section.querySelector("[data-picture]");
  const again = () => result.src && panel.run(); // after the first result, a change is shown at once
  const mask = new Mask(document.getElementById("paint"), model, () => panel.fail(""));
  const picture = panel.drop("picture", label, model, (made) => {
    panel.version++;
    mask.canvas.hidden = false;
    mask.clear();
    result.removeAttribute("src");
    if (made !== null) label.value = made;
    panel.fail("");
  });
  brush.max = Math.max(2, Math.floor(Math.min(model.width, model.height) / 2));
  brush.value = mask.brush = Math.max(1, Math.round(Math.min(model.width, model.height) / 7));
  panel.form.onchange = null;
  brush.oninput = () => { mask.brush = Number(brush.value); };
  erase.onchange = () => { mask.erase = erase.checked; };
  seed.onchange = label.onchange = again;
  document.getElementById("clear").onclick = () => mask.clear();
}

/** The tabs: one panel is shown; arrow keys select the next tab; the address has the name of the panel. */
function tabs() {
  const all = [...document.querySelectorAll("[role=tab]")];
  const select = (tab) => {
    for (const one of all) {
      one.ariaSelected = String(one === tab);
      one.tabIndex = one === tab ? 0 : -1;
      document.getElementById(one.getAttribute("aria-controls")).hidden = one !== tab;
    }
    history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  };
  for (const tab of all) {
    tab.dataset.text = tab.textContent;
    tab.onclick = () => select(tab);
    tab.onkeydown = (event) => {
      const shown = all.filter((one) => !one.hidden), k = shown.indexOf(tab);
      const to = { ArrowLeft: k - 1, ArrowRight: k + 1, Home: 0, End: shown.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = shown[(to + shown.length) % shown.length];
      select(next);
      next.focus();
    };
  }
  const named = () => all.find((tab) => !tab.hidden && `#${tab.getAttribute("aria-controls")}` === location.hash);
  window.onhashchange = () => named() && select(named());
  select(named() ?? all[0]);
}

/** Set the size of the frames to a whole multiple of the model's pixels, so all pixels have equal sizes. */
function measure({ width, height }) {
  const style = document.documentElement.style;
  style.setProperty("--w", width);
  style.setProperty("--h", height);
  for (const [name, side] of [["--large", 336], ["--small", 210]]) {
    const times = Math.floor(side / Math.max(width, height));
    const size = times ? times * width : (side * width) / Math.max(width, height);
    style.setProperty(name, `${size}px`);
  }
  document.body.classList.toggle("pixels", Math.max(width, height) <= 128);
}

/** Load the facts of the model, and make the panels. */
async function start() {
  // A file that is dropped beside a frame would be opened by the browser.
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => event.preventDefault());
  }
  tabs();
  try {
    const model = await ask("model");
    document.getElementById("name").textContent = model.name;
    document.title = `${model.name} · bcm-edge`;
    const classes = model.classes === null ? "" : `, ${model.classes} classes`;
    const colour = model.channels === 1 ? "grey" : "in colour";
    const parameters = `${model.parameters.toLocaleString("en")} parameters`;
    document.getElementById("about").textContent =
      `${model.width}×${model.height} pixels ${colour}${classes}, ${parameters}, ${model.player}`;
    measure(model);
    fillSelects(model);
    for (const panel of [generate, reconstruct, restyle, between, fill]) panel(model);
  } catch (error) {
    document.getElementById("about").textContent = error.message;
  }
}

start();
