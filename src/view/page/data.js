'use strict';
// The data block, unpacked, and what is worked out from it. draw.js draws it, hands.js answers to mouse and keys.
const $ = id => document.getElementById(id);
const data = JSON.parse($('data').textContent);
const canvas = $('canvas'), pen = canvas.getContext('2d'), tip = $('tip');
const COMPUTE = 0, GROUP = 1;
const PASS = 0, SEND = 1, RECV = 2, COLLECTIVE = 3;
const LEFT = 46, AXIS = 22, HEAD = 42;

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
