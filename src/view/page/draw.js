// What is in view, where it lies on the canvas, and drawing it.
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
