"use strict";
const figure = JSON.parse(document.getElementById("figure").textContent);
const picture = document.getElementById("picture");
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 40rem)");

// The style sheet has the colors, of which there are two sets; what has a color here names one of them.
function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function colored(value) {
  if (Array.isArray(value)) return value.map(colored);
  if (typeof value === "string") return value.startsWith("--") ? color(value.slice(2)) : value;
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, colored(inner)]));
}

function layout() {
  const made = colored(figure.layout);
  if (narrow.matches) Object.assign(made.font, { size: 11 });
  // With a finger one scrolls the page, and does not draw a rectangle to zoom.
  made.dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
  return made;
}

// The marks are elements of the drawing, which makes new ones whenever it is drawn.
function letMarksBeFocused() {
  const points = picture.querySelectorAll(".subplot.xy2 .scatterlayer .point");
  points.forEach((point, at) => {
    point.setAttribute("tabindex", "0");
    point.setAttribute("role", "img");
    point.setAttribute("aria-label", figure.data[figure.data.length - 1].text[at]);
    point.onfocus = () => show(at);
    point.onblur = () => Plotly.Fx.unhover(picture);
  });
}

function show(at) {
  Plotly.Fx.hover(picture, [{ curveNumber: figure.data.length - 1, pointNumber: at }], "xy2");
}

function draw() {
  const buttons = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"];
  const config = { responsive: true, displaylogo: false, modeBarButtons: [buttons] };
  return Plotly.react(picture, colored(figure.data), layout(), config).then(letMarksBeFocused);
}

draw().then(() => {
  picture.on("plotly_afterplot", letMarksBeFocused);
  document.querySelectorAll("button[data-mark]").forEach((button) => {
    button.onclick = () => {
      picture.scrollIntoView({ block: "nearest" });
      show(Number(button.dataset.mark));
    };
  });
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
  document.documentElement.dataset.drawn = String(Math.round(performance.now()));
});
