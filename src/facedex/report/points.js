// Faces as points on canvases: turned by dragging, zoomed by scrolling, named by pointing. No library, nothing fetched.
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const NAMED = 16; // of more people only the one pointed at is named
const NEAR = 14; // pixels around a point in which it is meant

const SHAPES = [
  (c, r) => c.arc(0, 0, r, 0, 7),
  (c, r) => c.rect(-r, -r, 2 * r, 2 * r),
  (c, r) => polygon(c, [0, -1.3 * r, 1.2 * r, r, -1.2 * r, r]),
  (c, r) => polygon(c, [0, -1.4 * r, 1.2 * r, 0, 0, 1.4 * r, -1.2 * r, 0]),
  (c, r) => polygon(c, [0, 1.3 * r, 1.2 * r, -r, -1.2 * r, -r]),
];

function polygon(c, xy) {
  c.moveTo(xy[0], xy[1]);
  for (let i = 2; i < xy.length; i += 2) c.lineTo(xy[i], xy[i + 1]);
  c.closePath();
}

let lit = null; // the person pointed at, in every panel
const panels = data.panels.map(makePanel);
const redraw = () => panels.forEach((draw) => draw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

function makePanel(panel) {
  const box = document.createElement("div");
  box.innerHTML = '<h2></h2><p class="soft"></p><canvas tabindex="0" role="img"></canvas>';
  box.querySelector("h2").textContent = panel.title;
  box.querySelector("p").textContent = panel.told;
  document.querySelector(".panels").append(box);
  const canvas = box.querySelector("canvas");
  const c = canvas.getContext("2d");
  const count = new Set(panel.who).size;
  canvas.setAttribute("aria-label", `${panel.title}: ${panel.points.length} faces of ${count} people`);
  const solid = panel.points[0].length === 3;
  let yaw = solid ? 0.6 : 0;
  let pitch = solid ? 0.35 : 0;
  let zoom = 1;
  let at = []; // where each point was drawn, with its depth
  let held = null;

  function turned([x, y, z = 0]) {
    const u = x * Math.cos(yaw) + z * Math.sin(yaw);
    const w = z * Math.cos(yaw) - x * Math.sin(yaw);
    return [u, y * Math.cos(pitch) - w * Math.sin(pitch), y * Math.sin(pitch) + w * Math.cos(pitch)];
  }

  function draw() {
    const k = devicePixelRatio || 1;
    const [wide, high] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = wide * k;
    canvas.height = high * k;
    c.setTransform(k, 0, 0, k, 0, 0);
    const style = getComputedStyle(document.body);
    const scale = Math.min(wide, high) * 0.42 * zoom;
    const spot = (point) => {
      const [x, y, depth] = turned(point);
      const near = solid ? 1 / (1 - depth * 0.25) : 1;
      return [wide / 2 + x * scale * near, high / 2 - y * scale * near, depth];
    };
    if (solid) drawAxes(spot, style.color);
    at = panel.points.map(spot);
    const order = at.map((_, i) => i).sort((a, b) => at[a][2] - at[b][2]); // far ones first
    for (const i of order) {
      const who = panel.who[i];
      c.globalAlpha = lit === null || lit === who ? 0.9 : 0.12;
      c.fillStyle = data.colours[who % data.colours.length];
      c.save();
      c.translate(at[i][0], at[i][1]);
      c.beginPath();
      SHAPES[Math.floor(who / data.colours.length) % SHAPES.length](c, solid ? 4.5 + 1.5 * at[i][2] : 5);
      c.fill();
      c.restore();
    }
    c.font = "600 13px system-ui, sans-serif";
    c.textAlign = "center";
    c.lineJoin = "round";
    c.lineWidth = 4;
    data.people.forEach((name, who) => {
      const mine = at.filter((_, i) => panel.who[i] === who);
      if (!mine.length || (data.people.length > NAMED && lit !== who)) return;
      const x = mine.reduce((sum, p) => sum + p[0], 0) / mine.length;
      const y = Math.min(...mine.map((p) => p[1])) - 9;
      c.globalAlpha = lit === null || lit === who ? 1 : 0.2;
      c.strokeStyle = style.backgroundColor;
      c.strokeText(name, x, y);
      c.fillStyle = style.color;
      c.fillText(name, x, y);
    });
    c.globalAlpha = 1;
  }

  function drawAxes(spot, ink) {
    c.globalAlpha = 0.45;
    c.lineWidth = 1;
    c.strokeStyle = c.fillStyle = ink;
    c.font = "12px system-ui, sans-serif";
    c.textAlign = "start";
    const [x0, y0] = spot([0, 0, 0]);
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]].forEach((end, n) => {
      const [x, y] = spot(end);
      c.beginPath();
      c.moveTo(x0, y0);
      c.lineTo(x, y);
      c.stroke();
      if (panel.axes) c.fillText(`PC ${n + 1}`, x + 3, y);
    });
  }

  function turn(sideways, upwards) {
    yaw += sideways;
    pitch = Math.max(-1.5, Math.min(1.5, pitch + upwards));
    draw();
  }

  function point(event) {
    const frame = canvas.getBoundingClientRect();
    let best = -1;
    let least = NEAR ** 2;
    at.forEach(([x, y], i) => {
      const away = (x - event.clientX + frame.left) ** 2 + (y - event.clientY + frame.top) ** 2;
      if (away < least) [least, best] = [away, i];
    });
    tip.style.display = best < 0 ? "none" : "block";
    if (best >= 0) {
      tip.textContent = panel.names[best];
      tip.style.left = `${Math.min(event.clientX + 14, innerWidth - 260)}px`;
      tip.style.top = `${event.clientY + 14}px`;
    }
    light(best < 0 ? null : panel.who[best]);
  }

  function light(who) {
    if (who === lit) return;
    lit = who;
    redraw();
  }

  canvas.onpointerdown = (event) => {
    held = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointerup = canvas.onpointercancel = () => { held = null; };
  canvas.onpointermove = (event) => {
    if (!held || !solid) return point(event);
    turn((event.clientX - held[0]) / 150, (event.clientY - held[1]) / 150);
    held = [event.clientX, event.clientY];
  };
  canvas.onpointerleave = () => {
    tip.style.display = "none";
    light(null);
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom = Math.max(0.3, Math.min(12, zoom * Math.exp(-event.deltaY / 600)));
    draw();
  }, { passive: false });
  canvas.onkeydown = (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
    if (step && solid) {
      event.preventDefault();
      turn(...step);
    } else if (event.key === "+" || event.key === "-") {
      zoom *= event.key === "+" ? 1.2 : 1 / 1.2;
      draw();
    }
  };
  new ResizeObserver(draw).observe(canvas);
  return draw;
}
