"use strict";
// Drawing only: bars between limits and strips of the last seconds. Colours come from the style sheet.

const colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["measured", "wanted", "line", "quiet", "good", "warn", "bad", "text"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
}

// Returns the canvas's context, cleared and in CSS pixels, with its size.
function blank(canvas) {
  const scale = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
  if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(h * scale)) {
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(h * scale);
  }
  const c = canvas.getContext("2d");
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.clearRect(0, 0, w, h);
  c.font = `${Math.max(11, Math.min(14, h * 0.19))}px system-ui, "DejaVu Sans", sans-serif`;
  return [c, w, h];
}

const degrees = (rad) => rad * 180 / Math.PI;
const words = (value, digits = 1) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));

// How near to a limit: "" far, "near" within a tenth of the range, "at" within a hundredth or beyond.
function nearness(value, low, high) {
  if (value === null || low === null || high === null) return "";
  const room = Math.min(value - low, high - value) / (high - low);
  return room < 0.01 ? "at" : room < 0.1 ? "near" : "";
}

// A position between its limits: measured as a disc, the set-point as an upright bar.
function drawPosition(canvas, value, wanted, low, high) {
  const [c, w, h] = blank(canvas), y = h * 0.42, bounded = low !== null && high !== null;
  const [from, to] = bounded ? [low, high] : [-Math.PI, Math.PI];
  const edge = 10, x = (v) => edge + Math.max(-0.01, Math.min(1.01, (v - from) / (to - from))) * (w - 2 * edge);
  c.lineCap = "round";
  c.strokeStyle = colours.line; c.lineWidth = 8;
  c.beginPath(); c.moveTo(edge, y); c.lineTo(w - edge, y); c.stroke();
  if (bounded) {
    c.lineWidth = 8; c.strokeStyle = colours.bad;
    for (const end of [edge, w - edge]) { c.beginPath(); c.moveTo(end, y); c.lineTo(end, y + 0.01); c.stroke(); }
  }
  c.fillStyle = colours.quiet; c.textBaseline = "top";
  const below = y + Math.min(14, h * 0.2);
  c.textAlign = "left"; c.fillText(bounded ? `${words(degrees(low), 0)}°` : "no limit", 2, below);
  c.textAlign = "right"; c.fillText(bounded ? `${words(degrees(high), 0)}°` : "no limit", w - 2, below);
  if (from < 0 && to > 0) { c.textAlign = "center"; c.fillText("0", x(0), below); c.fillRect(x(0) - 0.5, y - 8, 1, 16); }
  if (value !== null) {
    const near = nearness(value, low, high);
    c.fillStyle = near === "at" ? colours.bad : near === "near" ? colours.warn : colours.measured;
    c.beginPath(); c.arc(x(value), y, 9, 0, 7); c.fill();
  }
  if (wanted !== null) { c.fillStyle = colours.wanted; c.fillRect(x(wanted) - 2, y - 14, 4, 28); }
}

// A speed or torque from nought, against plus and minus its limit.
function drawMeter(canvas, value, wanted, most) {
  const [c, w, h] = blank(canvas), middle = w / 2;
  c.fillStyle = colours.line; c.beginPath(); c.roundRect(0, 2, w, h - 4, 4); c.fill();
  const x = (v) => middle + Math.max(-1, Math.min(1, v / (most || 1))) * middle;
  if (value !== null && most !== null) {
    const share = Math.abs(value) / most;
    c.fillStyle = share > 0.95 ? colours.bad : share > 0.8 ? colours.warn : colours.measured;
    c.fillRect(Math.min(middle, x(value)), 2, Math.max(1.5, Math.abs(x(value) - middle)), h - 4);
  }
  if (wanted !== null && most !== null) { c.fillStyle = colours.wanted; c.fillRect(x(wanted) - 1.5, 0, 3, h); }
  c.fillStyle = colours.quiet; c.fillRect(middle - 0.5, 0, 1, h);
}

// The last `seconds` of a position and its set-point, on a scale that fits them.
function drawStrip(canvas, samples, joint, wants, seconds, low, high) {
  const [c, w, h] = blank(canvas);
  if (!samples.length) return;
  const end = samples[samples.length - 1].t, right = w - c.measureText("−000.0°").width - 8;
  let bottom = Infinity, top = -Infinity;
  for (const s of samples) {
    for (const v of [s.q[joint], wants && s.reference ? s.reference[joint] : null]) {
      if (v !== null) { bottom = Math.min(bottom, v); top = Math.max(top, v); }
    }
  }
  const spread = Math.max((top - bottom) * 1.15, 0.1), centre = (top + bottom) / 2;
  bottom = centre - spread / 2; top = centre + spread / 2;
  const x = (t) => right * (1 - (end - t) / seconds), y = (v) => h - 6 - (v - bottom) / (top - bottom) * (h - 12);
  c.strokeStyle = colours.line; c.lineWidth = 1;
  for (let k = 0; k <= seconds; k += 2) { c.beginPath(); c.moveTo(right * k / seconds, 4); c.lineTo(right * k / seconds, h - 4); c.stroke(); }
  c.strokeStyle = colours.bad; c.setLineDash([6, 4]);
  for (const limit of [low, high]) {
    if (limit !== null && limit > bottom && limit < top) { c.beginPath(); c.moveTo(0, y(limit)); c.lineTo(right, y(limit)); c.stroke(); }
  }
  c.setLineDash([]);
  const trace = (pick, colour, width) => {
    c.strokeStyle = colour; c.lineWidth = width; c.lineJoin = "round"; c.beginPath();
    let before = null;
    for (const s of samples) {
      const v = pick(s);
      if (v === null) { before = null; continue; }
      if (before === null || s.t - before > 0.3) c.moveTo(x(s.t), y(v)); else c.lineTo(x(s.t), y(v));
      before = s.t;
    }
    c.stroke();
  };
  if (wants) trace((s) => (s.reference ? s.reference[joint] : null), colours.wanted, 4);
  trace((s) => s.q[joint], colours.measured, 2);
  c.fillStyle = colours.quiet; c.textAlign = "left";
  c.textBaseline = "top"; c.fillText(`${words(degrees(top))}°`, right + 5, 3);
  c.textBaseline = "bottom"; c.fillText(`${words(degrees(bottom))}°`, right + 5, h - 3);
}
