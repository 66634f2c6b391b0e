// What the four panels are made of: asking the server, fields, the frame a picture is dropped on.

const LIMIT = 12e6; // bytes of a file: base64 makes a third more of it, and the server takes 16 MB

/** The server's answer to a task. Throws an Error whose message is for people. */
export async function ask(task, fields) {
  let response;
  try {
    response = await fetch(`/api/${task}`, fields && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields) });
  } catch {
    throw new Error("the server does not answer; is bcm-edge ui still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

/** An element with properties and children. */
export function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** A class for people: its name, or its number if it has none. */
export const className = (model, label) => (model.names && label !== null ? model.names[label] : label);

/** Fill the label and schedule fields of the page from the model; where it has no classes, hide the former. */
export function fillSelects(model) {
  for (const element of document.querySelectorAll("[data-classes]")) element.hidden = model.classes === null;
  for (const select of model.classes === null ? [] : document.querySelectorAll("[data-labels]")) {
    const kind = select.dataset.labels;
    if (kind) select.append(new Option(kind === "guess" ? "guess" : "choose…", kind === "guess" ? "guess" : ""));
    for (let k = 0; k < model.classes; k++) select.append(new Option(className(model, k), k));
    if (kind === "guess" && model.classes > 20) select.value = "0"; // a guess takes five calls per class
  }
  for (const select of document.querySelectorAll("[data-schedules]")) {
    for (const { name, nfe } of model.schedules[select.dataset.schedules]) select.append(new Option(`${name} · ${nfe} call${nfe > 1 ? "s" : ""}`, name));
    if (select.dataset.schedules === "invert") select.selectedIndex = select.length - 1;
  }
}

/** The value of a label field as the server takes it: a number, "guess", or null. */
export const labelOf = (select) => (select.options.length === 0 || select.value === "" ? null : select.value === "guess" ? "guess" : Number(select.value));

/** The value of a seed field; one that is none goes to the server as it is, which says what is wrong. */
export const seedOf = (input) => (/^\d+$/.test(input.value) && Number.isSafeInteger(Number(input.value)) ? Number(input.value) : input.value);

/**
 * A frame for a picture that is dropped, chosen, or made by the model. `picture` is its data URL in the model's size, or null.
 * changed(label): called with each new picture, and the label under which it was made (null: unknown). failed(error): called with what went wrong.
 */
export class Drop {
  picture = null;

  constructor(frame, model, { wanted, changed, failed }) {
    Object.assign(this, { frame, model, wanted, changed, failed });
    this.image = make("img", { alt: "the given picture" });
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
    frame.ondrop = (event) => { event.preventDefault(); frame.classList.remove("over"); this.take(event.dataTransfer.files[0]); };
  }

  /** A file, as the model sees it. */
  async take(file) {
    if (!file) return;
    await this.load(async () => {
      if (file.size > LIMIT) throw new Error(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB; at most ${LIMIT / 1e6} are taken`);
      const url = await new Promise((resolve, reject) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result.replace(/^data:[^,]*,/, "data:;base64,"));
        reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
        reader.readAsDataURL(file);
      });
      return [(await ask("picture", { picture: url })).picture, null];
    });
  }

  /** A picture of a seed that nobody chose, by the bundle's longest schedule; of the label that is set, or of any. */
  async generate() {
    await this.load(async () => {
      const { classes, schedules } = this.model;
      const wanted = this.wanted();
      const label = typeof wanted === "number" || classes === null ? wanted : Math.floor(Math.random() * classes);
      const seed = Math.floor(Math.random() * 1e6);
      const schedule = schedules.generate.at(-1)?.name;
      return [(await ask("generate", { seed, label, schedule })).picture, label];
    });
  }

  async load(found) {
    try {
      const [picture, label] = await found();
      this.picture = this.image.src = picture;
      this.hint.hidden = true;
      this.changed(label);
    } catch (error) {
      this.failed(error);
    }
  }
}
