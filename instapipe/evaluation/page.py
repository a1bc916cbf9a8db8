"""The page of the report: one file, no network (its own policy forbids it), filters in a few lines of script."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@title@</title>
<style>
:root { color-scheme: light dark; --line: #8886; --soft: #8882; --ok: #2a9d5c; --bad: #d1495b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
small, .note { color: #888; } .wide { overflow-x: auto; }
.banner { border-left: 4px solid var(--ok); background: var(--soft); padding: .6rem 1rem; }
.banner.bad { border-color: var(--bad); }
nav { position: sticky; top: 0; background: Canvas; padding: .5rem 0; display: flex; flex-wrap: wrap; gap: .4rem; }
nav button { font: inherit; border: 1px solid var(--line); border-radius: 1rem; background: none; color: inherit;
 padding: .15rem .8rem; cursor: pointer; }
nav button[aria-pressed=true] { background: CanvasText; color: Canvas; }
#grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(336px, 1fr)); gap: .8rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 4px; overflow: hidden; }
figure[hidden] { display: none; } figure img { display: block; width: 100%; }
figcaption { padding: .2rem .5rem; font-size: .82rem; }
.k { font-weight: 600; } .translated .k { color: var(--ok); } figure:not(.translated) .k { color: var(--bad); }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
</style></head><body>
<h1>@title@</h1>
<p>@facts@</p>
<div class="banner @validity_class@">@validity@</div>
<h2>Verdicts</h2><div class="wide">@arms_table@</div>@arms_plot@
<h2>Where it fails</h2><div class="wide">@slices@</div>
@extra@
<h2>Instances, failures first <small id="shown"></small></h2>
<p class="note">Left before, right after. White: the source mask.
 Yellow: the returned mask. Blue: what the judge sees.</p>
<nav>@buttons@</nav><div id="grid">@figures@</div>
<script>
"use strict";
const figures = [...document.querySelectorAll("#grid figure")], state = {arm: "@first_arm@", kind: "all"};
function show() {
  let n = 0;
  for (const f of figures) {
    f.hidden = f.dataset.arm !== state.arm || (state.kind !== "all" && f.dataset.kind !== state.kind);
    if (!f.hidden) n++;
  }
  document.getElementById("shown").textContent = n + " shown";
  for (const b of document.querySelectorAll("nav button"))
    b.setAttribute("aria-pressed", String(state[b.dataset.group] === b.dataset.value));
}
for (const b of document.querySelectorAll("nav button"))
  b.addEventListener("click", () => { state[b.dataset.group] = b.dataset.value; show(); });
show();
</script></body></html>
"""
