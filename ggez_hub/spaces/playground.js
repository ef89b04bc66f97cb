// Shows the answers at the sliders' alphas, from what the page has: no request to the server.
(alpha1, alpha2, alpha3, facts, grid, strip, before) => {
  const escaped = (text) => String(text).replace(/[&<>"'`]/g, (letter) => `&#${letter.charCodeAt(0)};`);
  const rounded = (alpha) => Math.round(alpha * 10000) / 10000;
  const short = (alpha) => (String(rounded(alpha)).length > 4 ? String(rounded(alpha)) : alpha.toFixed(2));
  const percent = (share) => `${(100 * share).toFixed(share > 0.0995 && share < 0.995 ? 0 : 1)}%`;
  const colour = (kind, text) => `<span class="ggez-${kind}">${text}</span>`;
  const several = facts.regions.length > 1;
  const sliders = [alpha1, alpha2, alpha3].slice(0, facts.regions.length);
  sliders.forEach((alpha, r) => { sliders[r] = Math.min(1, Math.max(0, Number(alpha) || 0)); });
  const place = sliders.map(rounded).join(",");

  // The curves, with dots where the sliders stand, whether an answer is there or not.
  const curve = ({ svg, points, box }, r) => {
    const alpha = sliders[r];
    const next = points.findIndex((point) => point[0] >= alpha);
    const right = points[next < 0 ? points.length - 1 : next];
    const left = points[Math.max(0, points.indexOf(right) - 1)];
    const part = right[0] > left[0] ? Math.min(1, (alpha - left[0]) / (right[0] - left[0])) : 0;
    const values = [1, 2, 3].map((i) => left[i] + part * (right[i] - left[i]));
    const x = (box.x + alpha * box.width).toFixed(1);
    const y = (value) => (box.y + ((box.high - value) / (box.high - box.low)) * box.height).toFixed(1);
    const dots = ["global", "regional", "grp"].map((kind, i) =>
      `<circle class="dot ${kind}" cx="${x}" cy="${y(values[i])}" r="${kind === "grp" ? 6 : 4.5}"></circle>`);
    const line = `<line class="now" x1="${x}" x2="${x}" y1="${box.y}" y2="${box.y + box.height}"></line>`;
    const [global, regional, grp] = values.map((value) => value.toFixed(2));
    const measured = points.some((point) => Math.abs(point[0] - alpha) < 1e-6);
    return svg.replace("</svg>", `${line}${dots.join("")}</svg>`)
      + `<p class="ggez-note ggez-at">At α = ${short(alpha)}: ${colour("global", `global ${global}`)}, `
      + `${colour("regional", `regional ${regional}`)}, <b>GRP ${grp}</b> `
      + `${measured ? "(measured)" : "(between measured points, interpolated)"}.</p>`;
  };
  const curves = facts.curves.map(curve).join("");
  // An answer may come after another model was chosen.
  const fits = grid && String(grid.adapters) === String(facts.adapters);
  if (!fits) return [null, facts.message, "", curves, before, place];

  // The nearest of the alphas that are there. The server is asked for another one when `wanted` changes.
  const distance = (alphas) => Math.max(...alphas.map((alpha, r) => Math.abs(alpha - sliders[r])));
  const i = grid.alphas.reduce((best, alphas, j) => (distance(alphas) < distance(grid.alphas[best]) ? j : best), 0);
  const missing = distance(grid.alphas[i]) > 1e-6;
  const wanted = !missing ? before : before === place ? `${place} ` : place;

  const region = several ? "Regional" : escaped(grid.regions[0]);
  const named = (alpha, r) => (several ? `${escaped(grid.regions[r])} ${short(alpha)}` : short(alpha));
  const shown = grid.alphas[i].map(named).join(", ");
  const asked = grid.picture ? `<img src="${escaped(grid.picture)}" alt="the picture that was given" />` : "";
  const side = (kind, title, alpha, content) =>
    `<section class="${kind}"><h3>${colour(kind === "base" ? "global" : "regional", title)} `
    + `<span class="at">α = ${alpha}</span></h3>${content}</section>`;
  const page = (title, content) => `<div class="ggez-asked">${asked}<h2>${title}</h2></div>${content}`;
  const both = (draw) => `<div class="ggez-sides">${side("base", "Global base", "0", draw(grid.base, false))}`
    + `${side("region", region, shown, draw(i, true))}</div>`;
  let [compare, view, news] = [null, "", ""];

  if (grid.kind === "drawing" && strip && strip.length === grid.alphas.length) {
    compare = [strip[grid.base].image, strip[i].image];
    view = page(`“${escaped(grid.text)}”, seed ${grid.seed}`, `<p class="ggez-ends">`
      + `${colour("global", "Left: global base, α = 0")} ${colour("regional", `Right: ${region}, α = ${shown}`)}</p>`);
    news = "Drag the line in the picture to compare.";
  } else if (grid.kind === "choice") {
    const best = (j) => grid.shares[j].indexOf(Math.max(...grid.shares[j]));
    const bar = (share, name, first) =>
      `<li${first ? ' class="best"' : ""}><span class="name">${escaped(name)}${first ? " ✓" : ""}</span>`
      + `<span class="share">${percent(share)}</span>`
      + `<span class="bar" aria-hidden="true"><i style="width:${(100 * share).toFixed(1)}%"></i></span></li>`;
    const bars = (j) => grid.shares[j].map((share, o) => bar(share, grid.options[o], o === best(j))).join("");
    view = page(escaped(grid.text), both((j) => `<ul class="ggez-bars">${bars(j)}</ul>`));
    const here = `“${escaped(grid.options[best(i)])}” (${percent(grid.shares[i][best(i)])})`;
    news = `The base says “${escaped(grid.options[best(grid.base)])}”; here `
      + `${best(i) === best(grid.base) ? "also" : "it is"} ${here}.`;
  } else if (grid.kind === "text") {
    const said = (j) => (grid.texts[j] ? `“${escaped(grid.texts[j])}”` : "(no words)");
    view = page(escaped(grid.text), both((j) => `<p class="ggez-said">${said(j)}</p>`));
    news = grid.texts[grid.base] === grid.texts[i] ? "The same answer as the base." : "Another answer than the base.";
  } else if (grid.kind === "search") {
    const ranked = (j) => grid.scores[j].map((_, p) => p).sort((a, b) => grid.scores[j][b] - grid.scores[j][a]);
    const first = ranked(grid.base);
    const change = (steps) => {
      if (!steps) return '<span class="change">=<span class="ggez-hear"> as at the base</span></span>';
      const [sign, word] = steps > 0 ? ["▲", "up"] : ["▼", "down"];
      return `<span class="change ${word}"><span aria-hidden="true">${sign} ${Math.abs(steps)}</span>`
        + `<span class="ggez-hear">${word} ${Math.abs(steps)}</span></span>`;
    };
    const row = (p, rank, moved) => `<li><span class="rank">${rank + 1}</span>`
      + `<img src="${escaped(grid.thumbs[p])}" alt="" /><span class="name">${escaped(grid.names[p])}</span>`
      + `${moved ? change(first.indexOf(p) - rank) : ""}</li>`;
    const list = (j, moved) => ranked(j).slice(0, 6).map((p, rank) => row(p, rank, moved)).join("");
    const many = grid.names.length;
    view = page(
      grid.picture ? `Pictures like this one, among ${many}` : `“${escaped(grid.text)}” among ${many} pictures`,
      both((j, moved) => `<ol class="ggez-found">${list(j, moved)}</ol>`));
    const was = first.indexOf(ranked(i)[0]);
    news = `First here: ${escaped(grid.names[ranked(i)[0]])}, ${was ? `number ${was + 1}` : "as"} at the base.`;
  }
  const waiting = missing ? ` <span class="ggez-wait">(computing α = ${sliders.map(short).join(", ")} …)</span>` : "";
  return [compare, view, `<b>Shown: α = ${shown}.</b>${waiting} ${news}`, curves, wanted, place];
}
