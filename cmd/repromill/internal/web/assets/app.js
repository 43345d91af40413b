// Liveliness for pages that are whole without it: while a run is open, its part
// of the page is fetched again when an event says that something changed.
'use strict';
(() => {
  const live = () => document.getElementById('live');
  let source = null, timer = 0, busy = false, again = false;

  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const r = await fetch(location.pathname + '?part=live', { headers: { Accept: 'text/html' } });
      if (!r.ok) return;
      const doc = new DOMParser().parseFromString(await r.text(), 'text/html');
      const next = doc.getElementById('live'), now = live();
      if (!next || !now) return;
      const focused = document.activeElement && document.activeElement.id;
      const open = [...now.querySelectorAll('details')].map(d => d.open);
      const same = next.querySelectorAll('details').length === open.length;
      const was = now.dataset.live;
      now.replaceWith(document.adoptNode(next));
      if (same) live().querySelectorAll('details').forEach((d, i) => { d.open = open[i]; });
      if (focused && document.getElementById(focused)) document.getElementById(focused).focus({ preventScroll: true });
      tail();
      if (was && !live().dataset.live) { stop(); }
    } catch { /* the next event tries again */ } finally {
      busy = false;
      if (again) { again = false; soon(); }
    }
  };
  const soon = () => { if (!timer) timer = setTimeout(() => { timer = 0; refresh(); }, 150); };
  const tail = () => { const log = document.getElementById('log'); if (log) log.scrollTop = log.scrollHeight; };
  const stop = () => { if (source) { source.close(); source = null; } };

  const watch = () => {
    const el = live();
    if (!el || source || !window.EventSource) return;
    if (!el.dataset.live && !document.getElementById('approval')) return;
    source = new EventSource('/v1/runs/' + el.dataset.run + '/events?after=' + el.dataset.seq);
    source.onmessage = soon;
    source.addEventListener('end', () => { stop(); refresh(); });
  };
  document.addEventListener('DOMContentLoaded', () => {
    tail();
    watch();
    // The clock and the output move without an event.
    setInterval(() => { const el = live(); if (el && el.dataset.live && !document.hidden) soon(); }, 3000);
    document.addEventListener('submit', e => { e.target.querySelectorAll('button').forEach(b => setTimeout(() => { b.disabled = true; }, 0)); });
    window.addEventListener('pageshow', () => document.querySelectorAll('button:disabled').forEach(b => { b.disabled = false; }));
    document.addEventListener('keydown', e => {
      if (e.key !== '/' || e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) return;
      const box = document.getElementById('target') || document.getElementById('q');
      if (box) { e.preventDefault(); box.focus(); }
    });
  });
})();
