"""The style sheet of a page, for wide windows and phones, light and dark."""

STYLE = """
:root { color-scheme: light dark; --text: #1d2329; --quiet: #5b6670; --line: #dfe3e7;
  --back: #fbfbfa; --box: #ffffff; --mark: #eef4fa; --warn: #fff3dc; --warn-line: #e2a93b; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ea; --quiet: #9aa5af;
  --line: #363d44; --back: #16191c; --box: #1e2226; --mark: #22303d; --warn: #3a2e14;
  --warn-line: #a87f2a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1220px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h3 { font-size: 1.08rem; margin: 2.2rem 0 .6rem; }
article + article, nav + .scroll + article { margin-top: 3rem; border-top: 2px solid var(--line);
  padding-top: 1rem; }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1rem; margin: .6rem 0 1rem; }
a { color: inherit; }
.facts { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.2rem; margin: .4rem 0 0;
  padding: 0; font-size: .9rem; }
.facts span { color: var(--quiet); }
.summary { max-width: 75ch; margin: 1rem 0 1.4rem; }
.warning { background: var(--warn); border-left: 4px solid var(--warn-line); margin: 1rem 0;
  padding: .6rem .9rem; }
.note { color: var(--quiet); font-size: .88rem; margin: .4rem 0; max-width: 90ch;
  overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px;
  background: var(--box); margin: .6rem 0; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--quiet); padding: .55rem .8rem .3rem; }
th, td { padding: .34rem .65rem; white-space: nowrap; text-align: left; }
th { font-weight: 600; border-bottom: 1px solid var(--line); }
td { border-top: 1px solid var(--line); }
tbody tr:first-child td { border-top: 0; }
tbody tr:hover td { background: var(--mark); }
tr.start td { border-top: 2px solid var(--quiet); }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--box); }
.number { text-align: right; }
.best { font-weight: 700; }
.figures { display: grid; gap: .9rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); }
.figures.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; padding: .5rem; background: #ffffff; border: 1px solid var(--line);
  border-radius: 8px; }
figure svg { display: block; width: 100%; height: auto; }
pre { padding: .7rem .9rem; font-size: .82rem; line-height: 1.45; margin: .5rem 0; }
details summary { cursor: pointer; padding: .3rem 0; }
@media (max-width: 500px) { table { font-size: .82rem; } th, td { padding: .3rem .42rem; } }
@media print { .scroll { overflow: visible; } figure { break-inside: avoid; } }
"""
