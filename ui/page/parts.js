// The parts of the panels: requests to the server, fields, and the frame on which a picture is dropped.

const LIMIT = 12e6; // bytes of a file: base64 adds a third, and the server accepts 16 MB

/** Send a request to the server and return its answer. Throws an Error with a message for the user. */
export async function ask(task, fields) {
  let response;
  try {
    const headers = { "Content-Type": "application/json" };
    const options = fields && { method: "POST", headers, body: JSON.stringify(fields) };
    response = await fetch(`/api/${task}`, options);
  } catch {
    throw new Error("the server does not answer; check that bcm-edge ui is still running");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

/** Create an element with properties and children. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** The name of a class, or its number if it has no name. */
export const className = (model, label) => (model.names && label !== null ? model.names[label] : label);

/** Fill the label and schedule fields from the model. Without classes, the label fields are hidden. */
export function fillSelects(model) {
  const hasClasses = model.classes !== null;
  for (const element of document.querySelectorAll("[data-classes]")) element.hidden = !hasClasses;
  for (const select of hasClasses ? document.querySelectorAll("[data-labels]") : []) {
    const kind = select.dataset.labels;
    if (kind === "guess") select.append(new Option("guess", "guess"));
    else if (kind) select.append(new Option("choose…", ""));
    for (let k = 0; k < model.classes; k++) select.append(new Option(className(model, k), k));
    if (kind === "guess" && model.classes > 20) select.value = "0"; // a guess takes five calls per class
  }
  for (const select of document.querySelectorAll("[data-schedules]")) {
    for (const { name, nfe } of model.schedules[select.dataset.schedules]) {
      select.append(new Option(`${name} · ${nfe} call${nfe > 1 ? "s" : ""}`, name));
    }
    if (select.dataset.schedules === "invert") select.selectedIndex = select.length - 1;
  }
}

/** The value of a label field for the server: a number, "guess", or null. */
export function labelOf(select) {
  if (select.options.length === 0 || select.value === "") return null;
  return select.value === "guess" ? "guess" : Number(select.value);
}

/** The value of a seed field for the server. An invalid one is sent as it is; the server returns an error. */
export function seedOf(input) {
  const seed = Number(input.value);
  return /^\d+$/.test(input.value) && Number.isSafeInteger(seed) ? seed : input.value;
}

/**
 * A frame for a picture that is dropped, chosen, or made by the model.
 * picture: its data URL in the model's size, or null.
 * label(): returns the value of the label field.
 * changed(label): called after each new picture with the label that it was made with (null: unknown).
 * failed(error): called with an error.
 */
export class Drop {
  picture = null;

  constructor(frame, model, { label, changed, failed }) {
    Object.assign(this, { frame, model, label, changed, failed });
    this.image = make("img", { alt: "the chosen picture" });
    this.hint = make("div", { className: "hint" }, "Drop a picture here");
    this.input = make("input", { type: "file", accept: "image/*" });
    const choose = make("button", { type: "button", onclick: () => this.input.click() }, "Choose…");
    const generated = make("button", { type: "button", onclick: () => this.generate() }, "Make one");
    frame.append(this.image, this.hint);
    frame.parentElement.append(make("div", { className: "choices" }, choose, generated, this.input));
    this.hint.onclick = () => this.input.click();
    this.input.onchange = () => { this.take(this.input.files[0]); this.input.value = ""; };
    frame.ondragover = (event) => { event.preventDefault(); frame.classList.add("over"); };
    frame.ondragleave = () => frame.classList.remove("over");
    frame.ondrop = (event) => {
      event.preventDefault();
      frame.classList.remove("over");
      this.take(event.dataTransfer.files[0]);
    };
  }

  /** Show a file in the model's size. */
  async take(file) {
    if (!file) return;
    await this.load(async () => {
      if (file.size > LIMIT) {
        const size = (file.size / 1e6).toFixed(1);
        throw new Error(`${file.name} has ${size} MB; choose a file of at most ${LIMIT / 1e6} MB`);
      }
      const url = await new Promise((resolve, reject) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result.replace(/^data:[^,]*,/, "data:;base64,"));
        reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
        reader.readAsDataURL(file);
      });
      return [(await ask("picture", { picture: url })).picture, null];
    });
  }

  /** Make a picture with a random seed and the longest schedule; with the selected label, or a random one. */
  async generate() {
    await this.load(async () => {
      const { classes, schedules } = this.model;
      const selected = this.label();
      const isSet = typeof selected === "number" || classes === null;
      const label = isSet ? selected : Math.floor(Math.random() * classes);
      const seed = Math.floor(Math.random() * 1e6);
      const schedule = schedules.generate.at(-1)?.name;
      return [(await ask("generate", { seed, label, schedule })).picture, label];
    });
  }

  /** Show a picture. work(): returns a promise of its data URL and its label. */
  async load(work) {
    try {
      const [picture, label] = await work();
      this.picture = this.image.src = picture;
      this.hint.hidden = true;
      this.changed(label);
    } catch (error) {
      this.failed(error);
    }
  }
}
