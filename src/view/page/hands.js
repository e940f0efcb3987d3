// What an event says, and what mouse and keys do.

function facts(place, rank, i) {
  const { chart } = place, row = chart.rows[rank], lane = row.lists[row.track[i]] || [], style = chart.styles[row.style[i]];
  const before = lane[lane.indexOf(i) - 1], list = [];
  const stage = style.atStage && chart.chunks > 1 ? `, chunk ${chunkOf(chart, row, i)}` : '';
  list.push(['on', `r${rank}${stage}`], ['start', time(row.start[i])], ['takes', time(row.end[i] - row.start[i])], ['end', time(row.end[i])]);
  const reasons = waits(row, i).map(wait => {
    const what = chart.styles[row.style[wait]].act, named = nameOf(chart, row, wait);
    if (what === SEND) return [`the memory of ${named}, sent to r${row.peer[wait]}`, row.end[wait]];
    return [what === RECV ? `${named} from r${row.peer[wait]}` : named, row.end[wait]];
  });
  if (before !== undefined) reasons.push([`${nameOf(chart, row, before)}, before it`, row.end[before]]);
  const latest = Math.max(...reasons.map(reason => reason[1]));
  for (const [name, moment] of reasons) list.push(['waits for', `${name} · ${time(moment)}`, moment === latest && reasons.length > 1]);
  const effect = chart.effects[row.f[i]], bytes = (what, list) => {
    const parts = [];
    for (let at = 0; at < list.length; at += 2) parts.push(`${chart.classes[list[at]][0]} ${size(list[at + 1])}`);
    return parts.length ? [[what, parts.join(', ')]] : [];
  };
  list.push(...bytes('makes', effect[0]), ...bytes('frees', effect[1]));
  if (chart.criticalSet[rank].has(i)) list.push(['', 'on the critical path', true]);
  return { title: nameOf(chart, row, i), list };
}

function show(event, px, py) {
  if (!event) { tip.hidden = true; return; }
  const { title, list } = event.title ? event : facts(event.place, event.rank, event.i), table = document.createElement('dl'), head = document.createElement('b');
  head.textContent = title;
  let last = '';
  for (const [key, value, late] of list) {
    const name = document.createElement('dt'), said = document.createElement('dd');
    name.textContent = key === last ? '' : key; said.textContent = value; last = key;
    if (late) said.className = 'last';
    table.append(name, said);
  }
  tip.replaceChildren(head, table); tip.hidden = false;
  tip.style.left = `${px + tip.offsetWidth + 22 < width ? px + 14 : Math.max(4, px - tip.offsetWidth - 14)}px`;
  tip.style.top = `${py + tip.offsetHeight + 22 < height ? py + 14 : Math.max(4, py - tip.offsetHeight - 14)}px`;
}

// What a rank holds at a moment, where the mouse is over its memory.
function holds(px, py) {
  for (const place of layout) {
    const rank = Math.floor((py - rowTop(place, 0)) / place.step), down = py - rowTop(place, rank) - place.pass - place.lane - 2;
    if (!place.strip || rank < 0 || rank >= place.chart.rows.length || down < 0 || px < LEFT) continue;
    const { moments, held, most, peak } = memoryOf(place.chart, place.chart.rows[rank]), moment = momentAt(px), classes = place.chart.classes.length;
    let at = -1;
    while (at + 1 < moments.length && moments[at + 1] <= moment) at++;
    const list = [['at', time(moment)]];
    for (let kind = 0; kind < classes; kind++) if (at >= 0 && held[at * classes + kind] > 0) list.push([place.chart.classes[kind][0], size(held[at * classes + kind])]);
    list.push(['peak', `${size(most)} at ${time(peak)}`]);
    return { title: `r${rank} holds`, list };
  }
  return null;
}

function find(px, py) {
  for (const place of layout) {
    const rank = Math.floor((py - rowTop(place, 0)) / place.step);
    if (rank < 0 || rank >= place.chart.rows.length || px < LEFT) continue;
    const row = place.chart.rows[rank], down = py - rowTop(place, rank), moment = momentAt(px), near = 2 / scale();
    if (down > place.pass + place.lane + 2) return null;
    const list = row.lists[down > place.pass ? GROUP : COMPUTE];
    let found = null, gap = near;
    for (let at = firstAfter(row, list, moment - near); at < list.length && row.start[list[at]] <= moment + near; at++) {
      const i = list[at], apart = Math.max(row.start[i] - moment, moment - row.end[i], 0);
      const half = !row.share[i] || (row.share[i] === 1) === (down < place.pass / 2);
      if (half && (apart < gap || apart === 0 && gap === 0 && !found)) { found = i; gap = apart; }
      if (apart === 0 && row.end[i] > moment && half) { found = i; break; }
    }
    return found === null ? null : { place, rank, i: found };
  }
  return null;
}

function limit() {
  const least = end / 1e5;
  let length = Math.min(Math.max(view.to - view.from, least), end * 1.02);
  view.from = Math.max(-end * .01, Math.min(view.from, end * 1.01 - length));
  view.to = view.from + length;
}
function zoom(factor, px) {
  const moment = momentAt(px);
  view.from = moment - (moment - view.from) * factor; view.to = moment + (view.to - moment) * factor;
  moved();
}
function pan(time) { view.from += time; view.to += time; moved(); }
function whole() { view.from = 0; view.to = end; moved(); }
// Another part is in view: what is said stays with what was chosen.
function moved() {
  limit();
  pointed = null;
  const row = chosen && chosen.place.chart.rows[chosen.rank];
  if (row && row.end[chosen.i] >= view.from && row.start[chosen.i] <= view.to) show(chosen, Math.min(x(row.end[chosen.i]), width - 20), rowTop(chosen.place, chosen.rank) + chosen.place.pass);
  else show(null);
  ask();
}

function choose(event, say) {
  chosen = event; pointed = null;
  if (!event) { show(null); ask(); return; }
  const row = event.place.chart.rows[event.rank], from = row.start[event.i], to = row.end[event.i], length = view.to - view.from;
  if (from < view.from || to > view.to) { view.from = (from + to) / 2 - length / 2; view.to = view.from + length; limit(); }
  const top = rowTop(event.place, event.rank);
  if (top < AXIS) view.y -= AXIS - top; else if (top + event.place.step > height) view.y += top + event.place.step - height;
  show(event, x(to), rowTop(event.place, event.rank) + event.place.pass);
  const { title, list } = facts(event.place, event.rank, event.i);
  if (say) $('said').textContent = [title, ...list.map(([key, value]) => `${key} ${value}`)].join(', ');
  ask();
}

function step(sideways, down) {
  if (!chosen) {
    const place = layout[0], list = place.chart.rows[0].lists[COMPUTE];
    const at = Math.min(firstAfter(place.chart.rows[0], list, view.from), list.length - 1);
    if (at >= 0) choose({ place, rank: 0, i: list[at] }, true);
    return;
  }
  let { place, rank, i } = chosen, row = place.chart.rows[rank];
  if (sideways) {
    const list = row.lists[row.track[i]], next = list[list.indexOf(i) + sideways];
    if (next !== undefined) choose({ place, rank, i: next }, true);
    return;
  }
  const moment = row.start[i] + (row.end[i] - row.start[i]) / 2;
  rank += down;
  if (rank < 0 || rank >= place.chart.rows.length) {
    place = layout[layout.indexOf(place) + down];
    if (!place) return;
    rank = down > 0 ? 0 : place.chart.rows.length - 1;
  }
  row = place.chart.rows[rank];
  const list = row.lists[COMPUTE], at = Math.min(firstAfter(row, list, moment), list.length - 1);
  if (at >= 0) choose({ place, rank, i: list[at] }, true);
}

function toggle(name) {
  if ($(name).disabled) return;
  view[name] = !view[name];
  $(name).setAttribute('aria-pressed', view[name]);
  arrange(); moved();
}

let drag = null;
canvas.addEventListener('pointerdown', event => { drag = { x: event.offsetX, y: event.offsetY, moved: false }; try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that has gone */ } });
canvas.addEventListener('pointermove', event => {
  if (!drag) {
    const found = find(event.offsetX, event.offsetY);
    if (found?.i !== pointed?.i || found?.rank !== pointed?.rank || found?.place !== pointed?.place) { pointed = found; ask(); }
    const held = found ? null : holds(event.offsetX, event.offsetY);
    if (found || held || !chosen) show(found || held, event.offsetX, event.offsetY);
    return;
  }
  const across = event.offsetX - drag.x, down = event.offsetY - drag.y;
  if (!drag.moved && Math.abs(across) + Math.abs(down) < 4) return;
  drag.moved = true; pan(-across / scale()); view.y -= down; arrange();
  drag.x = event.offsetX; drag.y = event.offsetY;
});
canvas.addEventListener('pointerup', event => { if (drag && !drag.moved) choose(find(event.offsetX, event.offsetY), true); drag = null; });
canvas.addEventListener('pointercancel', () => { drag = null; });
canvas.addEventListener('pointerleave', () => { if (!drag) { pointed = null; if (!chosen) show(null); ask(); } });
canvas.addEventListener('wheel', event => {
  event.preventDefault();
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan((event.deltaX || event.deltaY) / scale());
  else if (event.altKey) { view.y += event.deltaY; arrange(); ask(); }
  else zoom(Math.exp(Math.max(-300, Math.min(300, event.deltaY)) * .0022), Math.max(LEFT, event.offsetX));
}, { passive: false });
addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const middle = () => chosen ? x((chosen.place.chart.rows[chosen.rank].start[chosen.i] + chosen.place.chart.rows[chosen.rank].end[chosen.i]) / 2) : (LEFT + width) / 2;
  const onCanvas = document.activeElement === canvas || document.activeElement === document.body, span = (view.to - view.from) / 4;
  const does = {
    '+': () => zoom(.6, middle()), '=': () => zoom(.6, middle()), '-': () => zoom(1 / .6, middle()), 0: whole,
    c: () => toggle('critical'), m: () => toggle('memory'), l: () => toggle('messages'), Escape: () => choose(null),
    ArrowLeft: () => event.shiftKey ? pan(-span) : step(-1, 0), ArrowRight: () => event.shiftKey ? pan(span) : step(1, 0),
    ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
    PageUp: () => { view.y -= height / 2; arrange(); ask(); }, PageDown: () => { view.y += height / 2; arrange(); ask(); },
    Home: () => pan(-end), End: () => pan(end),
  }[event.key];
  if (!does || !onCanvas && event.key.length > 1) return;
  event.preventDefault(); does();
});
$('in').onclick = () => zoom(.6, (LEFT + width) / 2);
$('out').onclick = () => zoom(1 / .6, (LEFT + width) / 2);
$('whole').onclick = whole;
for (const name of ['critical', 'memory', 'messages']) $(name).onclick = () => toggle(name);
$('critical').disabled = !data.charts.some(chart => chart.critical.length);
$('memory').disabled = !hasMemory;
$('messages').disabled = !data.charts.some(chart => chart.rows.some(row => row.p.length));
$('memory').setAttribute('aria-pressed', view.memory);

function legend() {
  const put = (colour, name) => {
    const entry = document.createElement('span'), swatch = document.createElement('i');
    swatch.style.background = colour; entry.append(swatch, name); $('legend').append(entry);
  };
  for (const [name, colour] of data.legend) put(colour, name);
  const held = new Map();
  for (const chart of data.charts) for (const effect of chart.effects) for (let at = 0; at < effect[0].length; at += 2) held.set(...chart.classes[effect[0][at]]);
  if (held.size) $('legend').append('memory: ');
  for (const [name, colour] of held) put(colour, name);
}

function resize() {
  const box = canvas.parentElement.getBoundingClientRect(), ratio = devicePixelRatio || 1;
  width = box.width; height = box.height;
  canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  arrange(); draw();
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', ask);
new ResizeObserver(resize).observe(canvas.parentElement);
legend();
resize();
