// The cameras' newest pictures, asked for one at a time; what is older than it may be is grey and says so.

const PICTURE_MS = 100, tiles = new Map();

function tileOf(camera) {
  if (!tiles.size) at("cameras").replaceChildren();
  const tile = { figure: element("figure", "stale"), image: element("img", ""), words: element("figcaption", ""), shown: null, askedAt: 0 };
  tile.image.alt = "";
  tile.figure.append(tile.image, tile.words);
  at("cameras").append(tile.figure);
  tiles.set(camera.name, tile);
  return tile;
}

function showCameras(told) {
  for (const camera of told) {
    const tile = tiles.get(camera.name) || tileOf(camera);
    tile.told = camera;
    tile.toldAt = performance.now();
    const newer = camera.sequence !== null && camera.sequence !== tile.shown;
    if (newer && performance.now() - tile.askedAt > PICTURE_MS) fetchPicture(tile);
  }
}

async function fetchPicture(tile) {
  const { name, sequence } = tile.told;
  tile.askedAt = Infinity; // until it is answered
  try {
    const answer = await ask(`/picture?camera=${encodeURIComponent(name)}`, POLL_LIMIT_MS);
    if (!answer.ok) throw new Error(await answer.text());
    const before = tile.image.src;
    tile.image.src = URL.createObjectURL(await answer.blob());
    if (before) URL.revokeObjectURL(before);
    tile.shown = sequence;
  } catch {
    // Asked for again; its age goes on growing meanwhile, and says enough.
  }
  tile.askedAt = performance.now();
}

function judgeCameras() {
  for (const { told, toldAt, figure, words } of tiles.values()) {
    const age = told.age_s === null ? Infinity : told.age_s + (performance.now() - toldAt) / 1000;
    const live = age <= told.stale_s;
    figure.classList.toggle("stale", !live);
    const old = Number.isFinite(age) ? `NOT LIVE: ${age.toFixed(1)} s old` : "NO PICTURE";
    const lost = told.missing || told.unlogged ? ` · ${count(told.missing)} missing, ${count(told.unlogged)} not logged` : "";
    words.textContent = `${told.name} · ${live ? milliseconds(age * 1000) : old}${lost}${told.words ? ` · ${told.words}` : ""}`;
  }
}
