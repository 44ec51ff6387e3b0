"use strict";

// Each figure is JSON beside its place. Colours are the page's, and follow it from light to dark.
function template() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = {
    gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"),
    automargin: true, title: { standoff: 8 },
  };
  return {
    layout: {
      font: { color: colour("--ink"), family: style.fontFamily, size: 13 },
      paper_bgcolor: colour("--paper"), plot_bgcolor: colour("--paper"),
      hoverlabel: {
        align: "left", bgcolor: colour("--shade"), bordercolor: colour("--line"),
        font: { color: colour("--ink") },
      },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" },
      annotationdefaults: { bgcolor: colour("--paper") },
      margin: { l: 20, r: 15, t: 25, b: 20 },
      xaxis: axis, yaxis: axis,
    },
  };
}

function draw() {
  for (const place of document.querySelectorAll(".plot")) {
    const { data, layout } = JSON.parse(place.nextElementSibling.textContent);
    Plotly.react(place, data, { ...layout, template: template() }, {
      responsive: true, displaylogo: false, modeBarButtons: [["toImage"]],
    });
  }
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
