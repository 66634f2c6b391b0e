// The four panels. Each asks the server for what its fields say, whenever one of them changes, and shows the answer.

import { Drop, ask, className, fillSelects, labelOf, make, seedOf } from "/parts.js";
import { Mask } from "/mask.js";

const FRAMES = 17; // on the way between two pictures

/** A section with fields, pictures and facts. request(): what to ask for, or null while something is missing. */
class Panel {
  version = 0; // raised when an answer that is under way is no longer wanted

  constructor(id, task, request, facts = {}) {
    Object.assign(this, { task, request, section: document.getElementById(id) });
    this.form = this.section.querySelector("form");
    this.fields = this.form.elements;
    this.error = make("p", { className: "error", role: "alert" });
    const milliseconds = (a) => a.milliseconds.toFixed(a.milliseconds < 10 ? 1 : 0);
    this.facts = Object.entries({ "network calls (NFE)": (a) => a.nfe, milliseconds, ...facts, program: (a) => a.schedule });
    const cells = this.facts.map(([name]) => make("div", { className: name === "program" ? "program" : "" }, make("dt", {}, name), make("dd", {}, "–")));
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

  /** Ask and show. While an answer is awaited, only the last of further wishes is kept. */
  async run() {
    this.again = true;
    if (this.section.ariaBusy === "true") return;
    this.section.ariaBusy = "true";
    while (this.again) {
      this.again = false;
      const version = this.version;
      try {
        const asked = this.request();
        const answer = asked && (await ask(this.task, asked));
        if (this.again || version !== this.version) continue;
        this.fail("");
        if (answer) this.show(answer);
      } catch (error) {
        this.fail(error.message);
      }
    }
    this.section.ariaBusy = "false";
  }

  show(answer) {
    for (const image of this.section.querySelectorAll("[data-picture]")) image.src = answer[image.dataset.picture];
    this.facts.forEach(([, value], k) => { this.values[k].textContent = value(answer); });
  }

  fail(message) { this.error.textContent = message && message[0].toUpperCase() + message.slice(1); }

  /** A frame for a picture. select: the field of its label. */
  drop(name, select, model, changed) {
    const frame = this.section.querySelector(`[data-drop=${name}]`);
    return new Drop(frame, model, { wanted: () => labelOf(select), changed, failed: (error) => this.fail(error.message) });
  }
}

const guessed = (model, labels) => (a) => labels.map((name) => className(model, a[name])).join(", ") + (a.guess_nfe ? ` (guessed in ${a.guess_nfe} calls)` : "");
const percent = (share) => `${(100 * share).toFixed(0)} %`;

function generate() {
  const panel = new Panel("generate", "generate", () => ({ seed: seedOf(seed), label: labelOf(label), schedule: schedule.value }));
  const { seed, label, schedule } = panel.fields;
  panel.run();
}

function reconstruct(model) {
  const panel = new Panel("reconstruct", "reconstruct",
    () => picture.picture && { picture: picture.picture, seed: seedOf(seed), label: labelOf(label), inversion: inversion.value, schedule: schedule.value },
    { "mean squared error": (a) => a.mse.toFixed(5), ...(model.classes === null ? {} : { label: guessed(model, ["label"]) }) });
  const { seed, label, inversion, schedule } = panel.fields;
  const picture = panel.drop("picture", label, model, () => panel.run());
}

function between(model) {
  const panel = new Panel("between", "interpolate",
    () => a.picture && b.picture && { a: a.picture, b: b.picture, seed: seedOf(seed), label: labelOf(label), label_b: labelOf(label_b), frames: FRAMES },
    model.classes === null ? {} : { labels: guessed(model, ["label", "label_b"]) });
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
  const panel = new Panel("fill", "inpaint", () => {
    if (!picture.picture) throw new Error("there is no picture yet: drop one, choose one, or have one made");
    return { picture: picture.picture, mask: mask.rows, seed: seedOf(seed), label: labelOf(label) };
  }, { "filled in": (a) => percent(a.filled) });
  const { seed, label, brush, erase } = panel.fields;
  const result = panel.section.querySelector("[data-picture]");
  const again = () => result.src && panel.run(); // once filled in, what changes is seen at once
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

/** Tabs: one panel is shown; arrow keys go from tab to tab, and the address names the panel. */
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
  all.forEach((tab, k) => {
    tab.dataset.text = tab.textContent;
    tab.onclick = () => select(tab);
    tab.onkeydown = (event) => {
      const to = { ArrowLeft: k - 1, ArrowRight: k + 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = all[(to + all.length) % all.length];
      select(next);
      next.focus();
    };
  });
  const named = () => all.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash);
  window.onhashchange = () => named() && select(named());
  select(named() ?? all[0]);
}

/** Sizes of frames: the largest whole multiple of the model's pixels, so that all of them look alike. */
function measure({ width, height }) {
  const style = document.documentElement.style;
  style.setProperty("--w", width);
  style.setProperty("--h", height);
  for (const [name, side] of [["--large", 336], ["--small", 210]]) {
    const times = Math.floor(side / Math.max(width, height));
    style.setProperty(name, `${times ? times * width : (side * width) / Math.max(width, height)}px`);
  }
  document.body.classList.toggle("pixels", Math.max(width, height) <= 128);
}

async function start() {
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault()); // beside a frame: the browser would open the file
  tabs();
  try {
    const model = await ask("model");
    document.getElementById("name").textContent = model.name;
    document.title = `${model.name} · bcm-edge`;
    const classes = model.classes === null ? "" : `, ${model.classes} classes`;
    document.getElementById("about").textContent =
      `${model.width}×${model.height} pixels ${model.channels === 1 ? "grey" : "in colour"}${classes}, ${model.parameters.toLocaleString("en")} parameters, ${model.player}`;
    measure(model);
    fillSelects(model);
    for (const panel of [generate, reconstruct, between, fill]) panel(model);
  } catch (error) {
    document.getElementById("about").textContent = error.message;
  }
}

start();
