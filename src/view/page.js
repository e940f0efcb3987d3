'use strict';
// Draws the charts of the data block: rows of passes on one time axis, at any zoom.
const $ = id => document.getElementById(id);
const data = JSON.parse($('data').textContent);
const canvas = $('canvas'), pen = canvas.getContext('2d'), tip = $('tip');
const COMPUTE = 0, GROUP = 1;
const PASS = 0, SEND = 1, RECV = 2, COLLECTIVE = 3;
const LEFT = 46, AXIS = 22, HEAD = 42;

// ---- data ----

// The columns of a row: see html.rs.
function decode(chart, row) {
  const count = row.k.length, act = i => chart.styles[row.style[i]].act;
  const column = Type => new Type(count);
  Object.assign(row, { count, style: column(Uint16Array), share: column(Uint8Array), start: column(Float64Array), posted: column(Float64Array), end: column(Float64Array),
    lane: column(Uint16Array), track: column(Uint8Array), waitsAt: new Int32Array(count + 1), peer: new Int32Array(count).fill(-1), other: column(Int32Array) });
  let start = 0, at = 0, message = 0, waited = 0, next = row.q.length ? row.q[0] : -1;
  for (let i = 0; i < count; i++) {
    row.style[i] = row.k[i] / 3 | 0; row.share[i] = row.k[i] % 3;
    start += row.t[i];
    row.start[i] = row.posted[i] = start * chart.scale; row.end[i] = (start + row.d[i]) * chart.scale;
    if (i === next) { row.posted[i] = (start - row.q[waited + 1]) * chart.scale; waited += 2; next = waited < row.q.length ? i + row.q[waited] : -1; }
    row.lane[i] = row.l[i] / 3 | 0; row.track[i] = row.l[i] % 3;
    row.waitsAt[i] = at + 1; at += row.w.length ? row.w[at] + 1 : 0;
    const what = act(i);
    if (what === SEND || what === RECV) { row.peer[i] = row.p[message]; row.other[i] = row.p[message + 1]; message += 2; }
  }
  row.waitsAt[count] = at + 1;
  const drawn = track => {
    const list = [];
    for (let i = 0; i < count; i++) if (row.track[i] === track) list.push(i);
    return list.sort((a, b) => row.start[a] - row.start[b] || row.end[a] - row.end[b] || a - b);
  };
  row.lists = [drawn(COMPUTE), drawn(GROUP)];
}

function waits(row, i) {
  if (!row.w.length) return [];
  const found = [];
  for (let at = row.waitsAt[i]; at < row.waitsAt[i] + row.w[row.waitsAt[i] - 1]; at++) found.push(i - row.w[at]);
  return found;
}

const mix = (hex, part) => {
  const channel = at => Math.floor((parseInt(hex.substr(at, 2), 16) * (100 - part) + 255 * part) / 100).toString(16).padStart(2, '0');
  return '#' + channel(1) + channel(3) + channel(5);
};
const dark = hex => parseInt(hex.substr(1, 2), 16) * 299 + parseInt(hex.substr(3, 2), 16) * 587 + parseInt(hex.substr(5, 2), 16) * 114 > 118000;

for (const chart of data.charts) {
  chart.styles = chart.styles.map(([name, act, colour, atStage]) => {
    const chunks = atStage ? Math.max(1, chart.chunks) : 1, colours = [];
    for (let chunk = 0; chunk < chunks; chunk++) colours.push(chunks < 2 ? colour : mix(colour, Math.floor(chunk * 55 / (chunks - 1))));
    const bytes = colour => [1, 3, 5].map(at => parseInt(colour.substr(at, 2), 16));
    return { name, act, atStage, colours, inks: colours.map(c => dark(c) ? '#000' : '#fff'), bytes: colours.map(bytes) };
  });
  chart.rows.forEach(row => decode(chart, row));
  chart.criticalSet = chart.rows.map(() => new Set());
  for (let i = 0; i < chart.critical.length; i += 2) chart.criticalSet[chart.critical[i]].add(chart.critical[i + 1]);
}
const chunkOf = (chart, row, i) => chart.styles[row.style[i]].atStage ? Math.min(chart.chunkOf[row.s[i]] || 0, chart.styles[row.style[i]].colours.length - 1) : 0;
const unitName = (chart, unit) => chart.slices > 1 ? `${Math.floor(unit / chart.slices)}.${unit % chart.slices}` : `${unit}`;
const number = value => `${+value.toFixed(3)}`;
const time = value => data.unit ? `${number(value)} ${data.unit}` : number(value);
const size = bytes => {
  for (const [power, unit] of [[30, 'GiB'], [20, 'MiB'], [10, 'KiB']]) if (bytes >= 2 ** power) return `${(bytes / 2 ** power).toFixed(1)} ${unit}`;
  return `${bytes} B`;
};

function nameOf(chart, row, i) {
  const style = chart.styles[row.style[i]], unit = row.u[i] ? ` m${unitName(chart, row.u[i] - 1)}` : '';
  if (style.act === COLLECTIVE || style.act > COLLECTIVE) return style.name + unit;
  return `${style.name} ${style.atStage ? 's' : 'r'}${row.s[i]}${unit}`;
}

// Buffers of a rank over time, from what each event makes and frees.
function memoryOf(chart, row) {
  if (row.memory) return row.memory;
  const steps = [];
  for (let i = 0; i < row.count; i++) {
    const effect = chart.effects[row.f[i]], act = chart.styles[row.style[i]].act;
    if (act !== SEND) for (let at = 0; at < effect[0].length; at += 2) steps.push([row.posted[i], 1, i, 0, effect[0][at], effect[0][at + 1]]);
    const late = row.end[i] === row.posted[i] ? 1 : 0;
    for (let at = 0; at < effect[1].length; at += 2) steps.push([row.end[i], late, i, 1, effect[1][at], -effect[1][at + 1]]);
  }
  // Of one moment: what ends and began before, then the rest as listed; what an event writes is there before it frees.
  steps.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2] || a[3] - b[3]);
  const classes = chart.classes.length, moments = [], held = [], now = new Float64Array(classes);
  let most = 0, peak = 0, sum = 0, spike = 0, spiked = null;
  steps.forEach(([moment, , , , kind, bytes], at) => {
    now[kind] += bytes; sum += bytes;
    if (sum > most) { most = sum; peak = moment; }
    if (bytes > 0 && sum > spike) { spike = sum; spiked = now.slice(); }
    if (at + 1 < steps.length && steps[at + 1][0] === moment) return;
    if (spike > sum) { moments.push(moment); held.push(...spiked); }
    moments.push(moment); held.push(...now);
    spike = 0;
  });
  return row.memory = { moments, held, most, peak };
}
const hasMemory = data.charts.some(chart => chart.effects.length > 1);

// ---- view ----

const end = Math.max(...data.charts.map(chart => Math.max(...chart.rows.map(row => row.end.reduce((a, b) => Math.max(a, b), 0))))) || 1;
const most = Math.max(...data.charts.map(chart => chart.rows.length));
const view = { from: data.range[0], to: data.range[1], y: 0, critical: false, memory: hasMemory && most * data.charts.length <= 16, messages: false };
let crowded = false, width = 0, height = 0, chosen = null, pointed = null, layout = [], total = 0, asked = false;

function arrange() {
  const rows = data.charts.reduce((sum, chart) => sum + chart.rows.length, 0);
  const room = (height - AXIS - HEAD * data.charts.length - 8) / rows;
  const groups = data.charts.some(chart => chart.rows.some(row => row.lists[GROUP].length));
  const lane = groups ? Math.max(2, Math.min(5, room / 8)) : 0;
  const strip = view.memory ? Math.max(10, Math.min(64, room * .45)) : 0;
  const pass = Math.max(7, Math.min(34, room - strip - lane - (room < 18 ? 1 : 6)));
  layout = []; total = 0;
  for (const chart of data.charts) {
    const top = total, own = chart.effects.length > 1 ? strip : 0; total += HEAD;
    layout.push({ chart, top, rows: total, pass, lane, strip: own, step: pass + lane + (own ? own + 2 : 0) + (room < 18 ? 1 : 4) });
    total += layout[layout.length - 1].step * chart.rows.length;
  }
  view.y = Math.max(0, Math.min(view.y, total + 10 - (height - AXIS)));
  for (const event of [chosen, pointed]) if (event) event.place = layout.find(place => place.chart === event.place.chart);
}

const scale = () => (width - LEFT - 10) / (view.to - view.from);
const x = moment => LEFT + (moment - view.from) * scale();
const momentAt = px => view.from + (px - LEFT) / scale();
const rowTop = (place, rank) => AXIS + place.rows + rank * place.step - view.y;

function ask() { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; draw(); }); } }

function firstAfter(row, list, moment) {
  let low = 0, high = list.length;
  while (low < high) { const middle = low + high >> 1; if (row.end[list[middle]] < moment) low = middle + 1; else high = middle; }
  return low;
}

// Boxes narrower than a pixel go into a line of pixels, each with the colour of what fills most of it, which is then stretched.
const thin = document.createElement('canvas'), thinPen = thin.getContext('2d', { willReadFrequently: true });
function boxes(chart, row, list, top, tall, only) {
  const k = scale(), right = width - 10;
  let pixel = -1, best = 0, sum = 0, colour = null, style = '', line = null;
  const flush = () => {
    if (pixel < 0) return;
    if (!line) {
      if (thin.width !== Math.ceil(width)) { thin.width = Math.ceil(width); thin.height = 1; }
      line = thinPen.createImageData(thin.width, 1);
    }
    line.data.set(colour, pixel * 4); line.data[pixel * 4 + 3] = 255 * Math.max(.25, Math.min(1, sum));
    pixel = -1; best = sum = 0;
  };
  const fits = tall >= 10;
  // What takes no time is shown where it is a mark of its own: on a lane of collectives.
  const least = list !== row.lists[GROUP] ? 0 : list.length * (view.to - view.from) / end > width ? .2 : .8;
  for (let at = firstAfter(row, list, view.from); at < list.length; at++) {
    const i = list[at];
    if (row.start[i] > view.to) break;
    if (only && !only.has(i)) continue;
    let from = LEFT + (row.start[i] - view.from) * k, to = LEFT + (row.end[i] - view.from) * k;
    if (to <= LEFT && from < LEFT || to - from === 0 && !least) continue;
    from = Math.max(from, LEFT); to = Math.min(Math.max(to, from + least), right);
    if (to - from < 1.5 && !only) {
      const column = Math.floor(from);
      if (column !== pixel) { flush(); pixel = column; }
      sum += to - from;
      if (to - from > best) { best = to - from; colour = chart.styles[row.style[i]].bytes[chunkOf(chart, row, i)]; }
      continue;
    }
    flush();
    const chunk = chunkOf(chart, row, i), look = chart.styles[row.style[i]], own = look.colours[chunk];
    if (style !== own) pen.fillStyle = style = own;
    const gap = to - from > 4 ? .7 : 0, half = row.share[i] ? tall / 2 : tall, down = row.share[i] === 2 ? tall / 2 : 0;
    pen.fillRect(from, top + down, Math.max(to - from - gap, only ? 1 : .5), half);
    if (fits && row.u[i] && half >= 8) {
      const label = unitName(chart, row.u[i] - 1), long = look.name + label;
      const text = to - from > long.length * 7 + 14 ? `${look.name} ${label}` : label;
      if (to - from > text.length * 6.4 + 3) {
        pen.fillStyle = style = look.inks[chunk];
        pen.fillText(text, (from + to - gap) / 2, top + down + half / 2 + .5);
      }
    }
  }
  flush();
  if (!line) return;
  thinPen.putImageData(line, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(thin, 0, 0, thin.width, 1, 0, top, thin.width, tall);
}

function draw() {
  const paper = getComputedStyle(document.documentElement), hue = name => paper.getPropertyValue(name).trim();
  const [back, text, dim, line, band, red] = ['--back', '--text', '--dim', '--line', '--band', '--red'].map(hue);
  pen.fillStyle = back; pen.fillRect(0, 0, width, height);
  pen.textBaseline = 'middle';
  for (const place of layout) {
    const { chart } = place;
    for (let rank = 0; rank < chart.rows.length; rank++) {
      const top = rowTop(place, rank), row = chart.rows[rank];
      if (top + place.step < AXIS || top > height) continue;
      pen.fillStyle = band; pen.fillRect(LEFT, top, width - 10 - LEFT, place.pass);
      pen.font = `${Math.min(11, Math.max(8, place.pass))}px system-ui, Arial, sans-serif`; pen.textAlign = 'right'; pen.fillStyle = dim;
      if (place.pass >= 9 || rank % 4 === 0) pen.fillText(`r${rank}`, LEFT - 7, top + place.pass / 2 + .5);
      pen.textAlign = 'center'; pen.font = `${Math.min(11, place.pass - 2)}px system-ui, Arial, sans-serif`;
      boxes(chart, row, row.lists[COMPUTE], top, place.pass);
      if (place.lane) boxes(chart, row, row.lists[GROUP], top + place.pass + 1, place.lane);
      if (place.strip) strip(chart, row, top + place.pass + place.lane + 2, place.strip, text, dim);
    }
    if (view.messages) messages(place, dim);
    if (view.critical && chart.critical.length) critical(place, back, red);
    const title = AXIS + place.top - view.y;
    pen.textAlign = 'left'; pen.fillStyle = text; pen.font = '600 14px system-ui, Arial, sans-serif';
    pen.fillText(chart.name, 12, title + 14);
    const wide = pen.measureText(chart.name).width;
    pen.fillStyle = dim; pen.font = '12px system-ui, Arial, sans-serif';
    pen.fillText(chart.shape, 22 + wide, title + 14.5);
    pen.fillText(chart.caption, 12, title + 31);
  }
  for (const event of [chosen, pointed]) if (event) mark(event, event === chosen ? text : dim, red);
  axis(back, dim, line);
  const more = view.messages && crowded ? ' · zoom in for messages' : '';
  $('where').textContent = `${number(view.from)} – ${number(view.to)} of ${time(end)}${more}`;
}

function axis(back, dim, line) {
  pen.fillStyle = back; pen.fillRect(0, 0, width, AXIS);
  const least = (view.to - view.from) / Math.max(1, width / 90), power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= least * .999999);
  pen.fillStyle = dim; pen.textAlign = 'center'; pen.font = '11px system-ui, Arial, sans-serif';
  for (let mark = Math.ceil(view.from / step); mark * step <= view.to; mark++) {
    const at = x(mark * step);
    pen.fillRect(Math.round(at), AXIS - 5, 1, 5);
    pen.fillText(mark ? number(mark * step) : time(0), at, 9);
  }
  pen.fillStyle = line; pen.fillRect(LEFT, AXIS - 1, width - LEFT - 10, 1);
}

// Memory of a rank, stacked by class; all ranks of all charts to one scale.
let tallest = 0;
function strip(chart, row, top, tall, text, dim) {
  const { moments, held, most: own, peak } = memoryOf(chart, row);
  if (!moments.length) return;
  if (!tallest) tallest = Math.max(...data.charts.flatMap(chart => chart.rows.map(row => memoryOf(chart, row).most))) || 1;
  const classes = chart.classes.length, right = width - 10, columns = Math.ceil(right - LEFT);
  // For each pixel the moment with the most bytes.
  let low = 0, high = moments.length;
  while (low < high) { const middle = low + high >> 1; if (moments[middle] <= view.from) low = middle + 1; else high = middle; }
  let at = Math.max(0, low - 1);
  const pick = new Int32Array(columns);
  const sumAt = moment => { let sum = 0; for (let kind = 0; kind < classes; kind++) sum += held[moment * classes + kind]; return sum; };
  for (let column = 0; column < columns; column++) {
    const until = momentAt(LEFT + column + 1);
    let best = moments[at] <= until ? at : -1, bytes = best < 0 ? 0 : sumAt(at);
    while (at + 1 < moments.length && moments[at + 1] < until) { at++; const sum = sumAt(at); if (best < 0 || sum >= bytes) { best = at; bytes = sum; } }
    pick[column] = best;
  }
  const under = new Float64Array(columns);
  for (let kind = 0; kind < classes; kind++) {
    let run = -1, from = 0, to = 0;
    pen.fillStyle = chart.classes[kind][1];
    for (let column = 0; column <= columns; column++) {
      let low = 0, high = 0;
      if (column < columns && pick[column] >= 0) { low = under[column]; high = low + held[pick[column] * classes + kind]; under[column] = high; }
      if (low === from && high === to) continue;
      if (run >= 0 && to > from) pen.fillRect(LEFT + run, top + tall * (1 - to / tallest), column - run, tall * (to - from) / tallest);
      run = column; from = low; to = high;
    }
  }
  if (tall >= 12) {
    pen.fillStyle = dim; pen.font = '9px system-ui, Arial, sans-serif'; pen.textAlign = 'right';
    const [amount, unit] = size(own).split(' ');
    pen.fillText(amount, LEFT - 7, top + tall / 2 - (tall >= 22 ? 5 : 0)); if (tall >= 22) pen.fillText(unit, LEFT - 7, top + tall / 2 + 6);
    const px = x(peak);
    if (px > LEFT && px < right) { pen.fillStyle = text; pen.fillRect(px, top + tall * (1 - own / tallest), 1, tall * own / tallest); }
  }
}

function messages(place, hue) {
  const { chart } = place;
  pen.strokeStyle = hue; pen.lineWidth = .7; pen.globalAlpha = .8; pen.beginPath();
  // More than can be told apart are left out until the picture is zoomed in.
  let drawn = 0;
  chart.rows.forEach((row, rank) => {
    for (let i = 0; i < row.count && drawn <= 6000; i++) {
      if (chart.styles[row.style[i]].act !== RECV || row.peer[i] < 0 || row.end[i] < view.from) continue;
      const sent = chart.rows[row.peer[i]].start[row.other[i]];
      if (sent > view.to) continue;
      if (++drawn > 6000) return;
      const down = row.peer[i] < rank;
      pen.moveTo(Math.max(LEFT, x(sent)), rowTop(place, row.peer[i]) + (down ? place.pass : 0));
      pen.lineTo(Math.max(LEFT, x(row.end[i])), rowTop(place, rank) + (down ? 0 : place.pass));
    }
  });
  if (drawn <= 6000) pen.stroke();
  pen.globalAlpha = 1;
  crowded = drawn > 6000;
}

function critical(place, back, red) {
  const { chart } = place;
  pen.globalAlpha = .72; pen.fillStyle = back;
  for (let rank = 0; rank < chart.rows.length; rank++) pen.fillRect(LEFT, rowTop(place, rank), width - LEFT, place.pass + place.lane + 1);
  pen.globalAlpha = 1;
  pen.strokeStyle = red; pen.lineWidth = 1.5; pen.beginPath();
  let before = null;
  for (let at = 0; at < chart.critical.length; at += 2) {
    const rank = chart.critical[at], i = chart.critical[at + 1], row = chart.rows[rank];
    if (row.track[i] !== COMPUTE) continue;
    const y = rowTop(place, rank) + place.pass / 2;
    if (before && before[1] !== y && x(row.start[i]) > LEFT && before[0] < width) { pen.moveTo(...before); pen.lineTo(x(row.start[i]), y); }
    before = [Math.max(LEFT, x(row.end[i])), y];
  }
  pen.stroke();
  pen.textAlign = 'center'; pen.font = `${Math.min(11, place.pass - 2)}px system-ui, Arial, sans-serif`;
  chart.rows.forEach((row, rank) => {
    const top = rowTop(place, rank);
    if (top > height || top + place.step < AXIS) return;
    boxes(chart, row, row.lists[COMPUTE], top, place.pass, chart.criticalSet[rank]);
    pen.fillStyle = red;
    for (const i of chart.criticalSet[rank]) if (row.track[i] === COMPUTE && row.end[i] > view.from && row.start[i] < view.to)
      pen.fillRect(Math.max(LEFT, x(row.start[i])), top + place.pass - 2, Math.max(1, x(row.end[i]) - Math.max(LEFT, x(row.start[i]))), 2);
  });
}

// An outline around an event, and lines from what it waited for.
function mark({ place, rank, i }, hue, red) {
  const row = place.chart.rows[rank], top = rowTop(place, rank);
  const group = row.track[i] === GROUP, y = group ? top + place.pass + 1 : top, tall = group ? place.lane : place.pass;
  pen.strokeStyle = red; pen.lineWidth = 1.2; pen.beginPath();
  for (const wait of waits(row, i)) {
    const sender = row.peer[wait];
    if (place.chart.styles[row.style[wait]].act !== RECV || sender < 0) continue;
    const from = rowTop(place, sender) + place.pass / 2;
    pen.moveTo(Math.max(LEFT, x(place.chart.rows[sender].start[row.other[wait]])), from); pen.lineTo(Math.max(LEFT, x(row.start[i])), y + tall / 2);
  }
  pen.stroke();
  pen.strokeStyle = hue; pen.lineWidth = 2;
  const from = Math.max(LEFT, x(row.start[i]));
  pen.strokeRect(from - 1, y - 1, Math.max(3, x(row.end[i]) - from + 1), tall + 2);
}

// ---- what an event says ----

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

// ---- hands ----

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
