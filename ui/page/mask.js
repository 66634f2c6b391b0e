// Painting a mask on a picture, with the pointer or with the arrow keys and the space bar.

import { make } from "/parts.js";

/** A canvas over a picture, on which the part to fill in is painted. */
export class Mask {
  brush = 1;
  erase = false;

  /** changed: called after every stroke. */
  constructor(frame, model, changed) {
    Object.assign(this, { width: model.width, height: model.height, changed });
    const { width, height } = model;
    this.canvas = make("canvas", { width, height, className: "mask", tabIndex: 0, hidden: true });
    this.canvas.setAttribute("role", "img");
    const label = "Paint the part to fill in: arrow keys move the brush, the space bar paints";
    this.canvas.setAttribute("aria-label", label);
    this.cursor = make("div", { className: "cursor", hidden: true });
    frame.append(this.canvas, this.cursor);
    this.colour = `rgb(${getComputedStyle(frame).getPropertyValue("--hole")} / .72)`;
    this.at = [Math.floor(model.width / 2), Math.floor(model.height / 2)];
    this.clear();
    this.canvas.onpointerdown = (event) => {
      if (event.button) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.last = null;
      this.stroke(event);
    };
    this.canvas.onpointermove = (event) => {
      if (event.buttons & 1) this.stroke(event);
      else this.move(this.place(event));
    };
    this.canvas.onpointerup = () => this.changed();
    this.canvas.onpointerleave = this.canvas.onblur = () => { this.cursor.hidden = true; };
    this.canvas.onkeydown = (event) => this.key(event);
  }

  /** The mask as the server takes it: one text per row, 1 where to fill in, else 0. */
  get rows() {
    const row = (_, y) => this.holes.subarray(y * this.width, (y + 1) * this.width).join("");
    return Array.from({ length: this.height }, row);
  }

  /** Erase everything. */
  clear() {
    this.holes = new Uint8Array(this.width * this.height);
    this.draw();
  }

  /** The pixel under the pointer. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const within = (value, size) => Math.min(Math.max(Math.floor(value * size), 0), size - 1);
    const x = within((event.clientX - box.x) / box.width, this.width);
    const y = within((event.clientY - box.y) / box.height, this.height);
    return [x, y];
  }

  /** Paint from the last place of the pointer to this one, without gaps. */
  stroke(event) {
    const to = this.place(event), from = this.last ?? to;
    const steps = Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]), 1);
    for (let k = 0; k <= steps; k++) {
      const between = (value, axis) => Math.round(value + ((to[axis] - value) * k) / steps);
      this.stamp(from.map(between));
    }
    this.last = to;
    this.move(to);
    this.draw();
  }

  /** The left and top pixels of a brush with this centre. */
  corner([x, y]) {
    const half = Math.floor((this.brush - 1) / 2);
    return [x - half, y - half];
  }

  /** Paint or erase the pixels of the brush. */
  stamp(at) {
    const [left, top] = this.corner(at);
    const right = Math.min(left + this.brush, this.width);
    const bottom = Math.min(top + this.brush, this.height);
    for (let y = Math.max(top, 0); y < bottom; y++) {
      for (let x = Math.max(left, 0); x < right; x++) this.holes[y * this.width + x] = this.erase ? 0 : 1;
    }
  }

  /** Move the outline of the brush. */
  move(at) {
    this.at = at;
    const [left, top] = this.corner(at);
    const share = (value, size) => `${(100 * value) / size}%`;
    Object.assign(this.cursor.style, {
      left: share(left, this.width),
      top: share(top, this.height),
      width: share(this.brush, this.width),
      height: share(this.brush, this.height),
    });
    this.cursor.hidden = false;
  }

  /** Handle a key: an arrow moves the brush, the space bar paints. */
  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step && event.key !== " ") return;
    event.preventDefault();
    if (step) {
      const x = Math.min(Math.max(this.at[0] + step[0], 0), this.width - 1);
      const y = Math.min(Math.max(this.at[1] + step[1], 0), this.height - 1);
      return this.move([x, y]);
    }
    this.stamp(this.at);
    this.move(this.at);
    this.draw();
    this.changed();
  }

  /** Draw the mask. */
  draw() {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    context.fillStyle = this.colour;
    this.holes.forEach((hole, k) => {
      if (hole) context.fillRect(k % this.width, Math.floor(k / this.width), 1, 1);
    });
  }
}
