// Painting what is unknown on a picture: with the pointer, or with the arrow keys and the space bar.

import { make } from "/parts.js";

export class Mask {
  brush = 1;
  erase = false;

  /** changed: called after every stroke. */
  constructor(frame, model, changed) {
    Object.assign(this, { width: model.width, height: model.height, changed });
    this.canvas = make("canvas", { width: model.width, height: model.height, className: "mask", tabIndex: 0, hidden: true });
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", "Paint what is unknown: arrow keys move the brush, the space bar paints");
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
    this.canvas.onpointermove = (event) => (event.buttons & 1 ? this.stroke(event) : this.move(this.place(event)));
    this.canvas.onpointerup = () => this.changed();
    this.canvas.onpointerleave = this.canvas.onblur = () => { this.cursor.hidden = true; };
    this.canvas.onkeydown = (event) => this.key(event);
  }

  get empty() { return !this.holes.includes(1); }

  /** One text per row, 1 where unknown. */
  get rows() { return Array.from({ length: this.height }, (_, y) => this.holes.subarray(y * this.width, (y + 1) * this.width).join("")); }

  clear() {
    this.holes = new Uint8Array(this.width * this.height);
    this.draw();
  }

  /** The pixel under the pointer. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const within = (value, size) => Math.min(Math.max(Math.floor(value * size), 0), size - 1);
    return [within((event.clientX - box.x) / box.width, this.width), within((event.clientY - box.y) / box.height, this.height)];
  }

  /** From the last place of the pointer to this one, leaving out no pixel between. */
  stroke(event) {
    const to = this.place(event), from = this.last ?? to;
    const steps = Math.max(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1]), 1);
    for (let k = 0; k <= steps; k++) this.stamp(from.map((value, axis) => Math.round(value + ((to[axis] - value) * k) / steps)));
    this.last = to;
    this.move(to);
    this.draw();
  }

  /** Left and top of the brush, whose middle is at a pixel. */
  corner([x, y]) { return [x - Math.floor((this.brush - 1) / 2), y - Math.floor((this.brush - 1) / 2)]; }

  stamp(at) {
    const [left, top] = this.corner(at);
    for (let y = Math.max(top, 0); y < Math.min(top + this.brush, this.height); y++)
      for (let x = Math.max(left, 0); x < Math.min(left + this.brush, this.width); x++) this.holes[y * this.width + x] = this.erase ? 0 : 1;
  }

  move(at) {
    this.at = at;
    const [left, top] = this.corner(at);
    const share = (value, size) => `${(100 * value) / size}%`;
    Object.assign(this.cursor.style, {
      left: share(left, this.width), top: share(top, this.height), width: share(this.brush, this.width), height: share(this.brush, this.height),
    });
    this.cursor.hidden = false;
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step && event.key !== " ") return;
    event.preventDefault();
    if (step) return this.move([Math.min(Math.max(this.at[0] + step[0], 0), this.width - 1), Math.min(Math.max(this.at[1] + step[1], 0), this.height - 1)]);
    this.stamp(this.at);
    this.move(this.at);
    this.draw();
    this.changed();
  }

  draw() {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    context.fillStyle = this.colour;
    this.holes.forEach((hole, k) => hole && context.fillRect(k % this.width, Math.floor(k / this.width), 1, 1));
  }
}
