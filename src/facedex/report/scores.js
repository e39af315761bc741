// A threshold to drag over the densities; both error rates follow it.
const data = JSON.parse(document.getElementById("data").textContent);
const slider = document.querySelector("input");
const picture = document.querySelector("svg");
const line = document.getElementById("line");
const [LEFT, WIDE, ALL] = [40, 920, 1000]; // of the drawing's units

function rate(value) {
  if (value === 0) return "0";
  return value < 1e-3 ? value.toExponential(1) : `${(100 * value).toFixed(value < 0.01 ? 2 : 1)} %`;
}

function tell() {
  const threshold = Number(slider.value);
  let place = data.thresholds.findIndex((t) => t >= threshold);
  if (place < 0) place = data.thresholds.length - 1;
  document.getElementById("t").value = threshold.toFixed(3);
  document.getElementById("fmr").value = rate(data.fmr[place]);
  document.getElementById("fnmr").value = rate(data.fnmr[place]);
  const x = LEFT + ((threshold - data.low) / (data.high - data.low)) * WIDE;
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
}

function drag(event) {
  if (!event.buttons) return;
  const frame = picture.getBoundingClientRect();
  const x = ((event.clientX - frame.left) / frame.width) * ALL;
  slider.value = data.low + ((x - LEFT) / WIDE) * (data.high - data.low);
  tell();
}

slider.oninput = tell;
picture.onpointerdown = picture.onpointermove = drag;
tell();
