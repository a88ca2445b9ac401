// Asks for the state again and again, shows it, and presses buttons. What is older than half a second is not shown as live.

const token = new URLSearchParams(location.search).get("token");
const headers = { Authorization: `Bearer ${token}` };
const at = (id) => document.getElementById(id);
const POLL_MS = 50, POLL_LIMIT_MS = 2000, STOP_LIMIT_MS = 3000, PANELS_MS = 250;

const MEANING = {
  DISCONNECTED: "nothing was measured yet",
  IDLE: "the arm is heard; nothing is written to it",
  ARMED: "the motors hold the arm where it stands; the policy is not followed",
  ACTIVE: "the arm follows the policy: keep clear",
  HOLD: "braked and held; the policy is not followed",
  FAULT: "stopped: something must be looked at before a reset",
  ESTOP: "stopped by a person: latched until a person resets",
};
const SENSIBLE = { IDLE: ["arm"], ARMED: ["activate", "disarm"], ACTIVE: ["hold"], HOLD: ["resume", "disarm"], FAULT: ["reset"], ESTOP: ["reset"] };

let arm = null, newest = null, receivedAt = 0, trouble = "", waitingFor = "";
let samples = [], shownEvent = -1, panelsAt = -Infinity;
const rows = [];

function element(kind, className, text = "") {
  const made = document.createElement(kind);
  made.className = className;
  made.textContent = text;
  return made;
}

function build() {
  at("robot").textContent = arm.robot;
  at("bridge").textContent = arm.bridge;
  at("history-head").textContent = `the last ${arm.history_s} s`;
  for (const name of arm.joints) {
    const joint = element("div", "joint"), row = { position: element("canvas", ""), strip: element("canvas", "") };
    const title = element("div", "cell");
    row.value = element("div", "value", "–");
    row.radians = element("small", "");
    title.append(element("div", "name", name.replace(/_joint$/, "").replaceAll("_", " ")), row.value, row.radians);
    joint.append(title);
    for (const canvas of [row.position, row.strip]) {
      const cell = element("div", "cell");
      cell.append(canvas);
      joint.append(cell);
    }
    for (const what of ["dq", "tau"]) {
      const cell = element("div", "cell meter");
      row[what] = element("canvas", "");
      row[`${what}Words`] = element("div", "number");
      cell.append(row[`${what}Words`], row[what]);
      joint.append(cell);
    }
    rows.push(row);
    at("rows").append(joint);
  }
}

function list(place, entries) {
  place.replaceChildren(...entries.flatMap(([name, text, bad]) => [element("dt", "", name), element("dd", bad ? "at" : "", text)]));
}

const count = (n) => n.toLocaleString("en");
function milliseconds(ms) {
  if (ms === null) return "–";
  if (ms < 1) return `${(ms * 1000).toFixed(0)} µs`;
  return ms < 1000 ? `${ms.toFixed(ms < 100 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function show(p) {
  document.body.dataset.state = p.state;
  at("state").textContent = p.state;
  at("meaning").textContent = MEANING[p.state];
  at("cause").textContent = p.cause;
  for (const button of document.querySelectorAll("[data-wish]")) {
    button.classList.toggle("sensible", (SENSIBLE[p.state] || []).includes(button.dataset.wish));
  }
  const event = p.events.length ? p.events[p.events.length - 1].number : 0;
  if (event !== shownEvent) showEvents(p.events);
  shownEvent = event;
  showCameras(p.cameras);
  if (performance.now() - panelsAt < PANELS_MS) return; // figures that change more often cannot be read
  panelsAt = performance.now();
  const share = p.ticks ? p.misses / p.ticks : 0;
  list(at("latency"), [
    ["wakes late, 99 %", milliseconds(p.late_99_us / 1000)], ["latest wake", milliseconds(p.worst_ms)],
    ["periods missed", `${count(p.misses)} of ${count(p.ticks)}`, share > 0.01], ["periods skipped", count(p.skipped)],
    ["age of the observation", milliseconds(p.observation_age_ms), p.observation_age_ms > 10 * arm.period_ms],
    ["policy's last action", p.action_age_s === null ? "none yet" : `${milliseconds(p.action_age_s * 1000)} ago`],
    ["age of all this", milliseconds(p.age_s === null ? null : p.age_s * 1000)],
  ]);
  const last = samples[samples.length - 1];
  list(at("supervisor"), [
    ["interventions", `${count(p.interventions)} ${p.interventions === 1 ? "period" : "periods"}`], ["rules now", (last && last.rules) || "none"],
    ["arm's controller", p.vendor || "nothing to report", p.vendor], ["recorder", p.recorder || "no trouble", p.recorder],
    ["bus errors", count(p.bus_errors)], ["stop generation", p.generation === null ? "–" : count(p.generation)],
  ]);
}

function showEvents(events) {
  at("events").replaceChildren(...events.slice().reverse().map((event) => {
    const item = element("li", "");
    item.append(element("time", "", event.time), element("b", "", event.kind), element("span", "", event.text));
    return item;
  }));
}

function draw() {
  const last = samples[samples.length - 1];
  if (!arm || !last || document.body.classList.contains("not-live")) return;
  const limits = arm.limits, wanted = (mode, i) => (arm.mode === mode && last.reference ? last.reference[i] : null);
  rows.forEach((row, i) => {
    const low = limits.position_min[i], high = limits.position_max[i];
    row.value.textContent = `${words(last.q[i] === null ? null : degrees(last.q[i]))}°`;
    row.value.className = `value ${nearness(last.q[i], low, high)}`;
    row.radians.textContent = `${words(last.q[i], 3)} rad`;
    row.dqWords.textContent = `${words(last.dq[i], 2)} rad/s`;
    row.tauWords.textContent = `${words(last.tau[i])} N·m`;
    drawPosition(row.position, last.q[i], wanted("joint_position", i), low, high);
    drawStrip(row.strip, samples, i, arm.mode === "joint_position", arm.history_s, low, high);
    drawMeter(row.dq, last.dq[i], wanted("joint_velocity", i), limits.velocity_max[i]);
    drawMeter(row.tau, last.tau[i], wanted("joint_torque", i), limits.torque_max[i]);
  });
}

// Says whether what is shown is live, by the page's own clock: it must also notice that nothing comes any more.
function judge() {
  const seen = newest && newest.age_s !== null;
  const age = seen ? newest.age_s + (performance.now() - receivedAt) / 1000 : Infinity;
  const live = seen && age <= arm.live_s;
  document.body.classList.toggle("not-live", !live);
  judgeCameras();
  document.title = live ? `${newest.state} · ${arm.robot}` : "NOT LIVE";
  for (const button of document.querySelectorAll("[data-wish]")) button.disabled = !live || waitingFor !== "";
  if (live) return;
  const since = seen ? `The bridge was last heard ${age.toFixed(1)} s ago; what stands here is old.` : "Nothing was heard of the bridge yet.";
  const busy = newest && newest.pending ? ` It is busy with “${newest.pending}” and hears nobody until that is done.` : "";
  at("gone-why").textContent = `${since}${busy} ${trouble} STOP may not be heard.`;
}

async function ask(path, milliseconds, options = {}) {
  return fetch(path, { ...options, headers: { ...headers, ...options.headers }, cache: "no-store", signal: AbortSignal.timeout(milliseconds) });
}

async function poll() {
  try {
    if (!arm) {
      const answer = await ask("/arm", POLL_LIMIT_MS);
      if (!answer.ok) throw new Error(await answer.text());
      arm = await answer.json();
      build();
    }
    const after = samples.length ? samples[samples.length - 1].n : 0;
    const answer = await ask(`/state?after=${after}`, POLL_LIMIT_MS);
    if (!answer.ok) throw new Error(await answer.text());
    newest = await answer.json();
    receivedAt = performance.now();
    trouble = "";
    samples = samples.concat(newest.samples);
    if (samples.length) samples = samples.filter((s) => s.t > samples[samples.length - 1].t - arm.history_s);
    show(newest);
    requestAnimationFrame(draw);
  } catch (error) {
    trouble = `This page's own server says: ${error.message}.`;
  }
  judge();
  setTimeout(poll, POLL_MS);
}

async function press(button, limit) {
  try {
    const options = { method: "POST", body: JSON.stringify({ button }), headers: { "Content-Type": "application/json" } };
    const answer = await ask("/press", limit, options);
    return answer.headers.get("Content-Type") === "application/json" ? await answer.json() : { ok: false, text: await answer.text() };
  } catch (error) {
    return { ok: false, text: `${button} was NOT answered (${error.message}): if the arm must stop, press the emergency stop button of the arm` };
  }
}

function answerWith(reply) {
  at("answer").textContent = reply.text;
  at("answer").className = reply.ok ? "yes" : "no";
}

async function stop() {
  at("stop-words").textContent = "pressed …";
  const reply = await press("stop", STOP_LIMIT_MS);
  at("stop-words").textContent = "or press the space bar";
  answerWith(reply);
}

async function wish(button) {
  const verb = button.dataset.wish;
  button.blur();
  waitingFor = verb;
  button.classList.add("waiting");
  at("answer").textContent = `${verb}: the bridge is asked …`;
  at("answer").className = "";
  judge();
  const reply = await press(verb, 20000);
  waitingFor = "";
  button.classList.remove("waiting");
  answerWith(reply);
  judge();
}

at("stop").addEventListener("pointerdown", stop);
at("stop").addEventListener("click", (event) => { if (event.detail === 0) stop(); }); // by keyboard; a pointer was heard as it went down
for (const button of document.querySelectorAll("[data-wish]")) button.addEventListener("click", () => wish(button));
for (const kind of ["keydown", "keyup"]) {
  // Before anything else hears it: the space bar would also press the button that has the focus.
  window.addEventListener(kind, (event) => {
    if (event.code !== "Space") return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (kind === "keydown" && !event.repeat) stop();
  }, true);
}

function choose(theme) {
  document.documentElement.dataset.theme = theme;
  readColours();
}
choose(localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
at("theme").addEventListener("click", () => {
  choose(document.documentElement.dataset.theme === "light" ? "dark" : "light");
  localStorage.setItem("theme", document.documentElement.dataset.theme);
});
setInterval(judge, 100);
poll();
