"use strict";
/* The report's own script. It gets its data from this page alone: text of boards is only ever put in as text. */
(() => {
  const $ = (id) => document.getElementById(id);
  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  document.documentElement.classList.add("with-script");

  const unpack = async (id) => {
    const packed = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };
  const canUnpack = typeof DecompressionStream === "function";

  /* ---- Tests: their bodies come when they are opened; a link into a closed test opens it. ---- */

  let bodies = null, unpacking = null;
  const unpackBodies = async () => {
    unpacking = unpacking || unpack("details-data");
    bodies = await unpacking;
    document.documentElement.classList.add("unpacked");
  };
  const draw = async (test) => {
    const place = test.querySelector(":scope > .body > .lazy");
    if (!place || place.dataset.drawn) return;
    place.dataset.drawn = "1";
    if (!canUnpack) {
      place.textContent = "This browser cannot unpack what is known of this test (it has no DecompressionStream).";
      return;
    }
    // Once they are unpacked nothing here waits: paper does not.
    if (!bodies) await unpackBodies();
    const pieces = bodies.tests[place.dataset.details] || [];
    // Made by the report's templates, which escape all that comes from outside; the page's policy runs no other script.
    place.innerHTML = pieces.map(([heading, n]) => bodies.pieces[heading][n]).join("");
  };
  if (canUnpack && document.querySelector("details.test.bad > .body > .lazy")) {
    addEventListener("load", () => setTimeout(unpackBodies, 200));
  }
  document.addEventListener("toggle", (event) => {
    if (event.target.matches("details.test") && event.target.open) draw(event.target);
  }, true);
  document.querySelectorAll("details.test[open]").forEach(draw);

  const reveal = async (target) => {
    for (let around = target.closest("details"); around; around = around.parentElement.closest("details")) {
      around.open = true;
      around.hidden = false;
      if (around.matches(".test")) await draw(around);
    }
    target.scrollIntoView({ block: target.matches("details, section") ? "start" : "center" });
    document.querySelectorAll(".here-now").forEach((old) => old.classList.remove("here-now"));
    target.classList.add("here-now");
  };
  const revealHash = async () => {
    const id = location.hash.slice(1), within = /^(t\d+|b\d+p)[ec]\d+$/.exec(id);
    // What is inside a test that was never opened is not in the page yet.
    if (within && !$(id) && $(within[1])) await draw($(within[1]));
    const line = /^(b\d+)l(\d+)$/.exec(id);
    if (line) open(line[1], Number(line[2]), null);
    if ($(id)) reveal($(id));
  };
  addEventListener("hashchange", revealHash);

  let openedForPrint = [];
  const openForPaper = () => {
    openedForPrint = [...document.querySelectorAll(
      "details.test.bad:not([open]), details.group:not([open]), .few details:not([open])")];
    openedForPrint.forEach((closed) => {
      closed.open = true;
      if (closed.matches(".test")) draw(closed);
    });
  };
  addEventListener("beforeprint", openForPaper);
  addEventListener("afterprint", () => openedForPrint.forEach((opened) => { opened.open = false; }));

  /* ---- The filter of tests. ---- */

  const text = $("filter-text"), board = $("filter-board"), outcome = $("filter-outcome");
  if (text) {
    const tests = [...document.querySelectorAll(".tests > details.test")];
    const filter = () => {
      const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const test of tests) {
        const wanted = (!board.value || test.dataset.board === board.value)
          && (!outcome.value || test.dataset.outcome === outcome.value)
          && words.every((word) => test.dataset.search.includes(word));
        test.hidden = !wanted;
        shown += wanted;
      }
      $("filter-count").textContent = `${shown} of ${tests.length}`;
    };
    for (const input of [text, board, outcome]) input.addEventListener("input", filter);
    filter();
  }

  /* ---- Copying a command. ---- */

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    const code = button.parentElement.querySelector("code");
    let done = false;
    try {
      await navigator.clipboard.writeText(code.textContent);
      done = true;
    } catch {
      getSelection().selectAllChildren(code);
      done = document.execCommand("copy");
    }
    button.textContent = done ? "Copied" : "Select it and copy";
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });

  /* ---- Steps in flash: a step shows the partitions that it changed. ---- */

  document.addEventListener("click", (event) => {
    const step = event.target.closest("[data-step]");
    if (!step || event.target.closest("a")) return;
    const figure = step.closest("figure"), on = !step.classList.contains("hot");
    figure.querySelectorAll(".hot").forEach((old) => old.classList.remove("hot"));
    if (!on) return;
    step.classList.add("hot");
    figure.querySelectorAll("[data-touched]").forEach((row) => {
      if (row.dataset.touched.split(" ").includes(step.dataset.step)) row.classList.add("hot");
    });
  });

  /* ---- The serial log: lines are made when they come into view, a chunk at a time. ---- */

  const CHUNK = 100, LINE_HEIGHT = 19, MARKS = "mtsg", TELLING = "blvwepmg";
  const dock = $("dock"), scroller = $("log-lines"), search = $("log-search"), telling = $("log-telling");
  const logs = new Map();
  let log = null, view = [], chunks = [], found = [], current = -1, here = -1, origin = null;

  const clock = (ms) => {
    const part = (value, digits) => String(value).padStart(digits, "0");
    const day = ms % 86400000;
    return `${part(Math.floor(day / 3600000), 2)}:${part(Math.floor(day / 60000) % 60, 2)}:`
      + `${part(Math.floor(day / 1000) % 60, 2)}.${part(day % 1000, 3)}`;
  };

  const load = async (id) => {
    if (logs.has(id)) return logs.get(id);
    const data = await unpack(`${id}data`);
    const raw = data.text ? data.text.split("\n") : [];
    const made = { id, data, numbers: [], times: [], kinds: [], texts: [], references: new Map(), gaps: new Map() };
    const gaps = data.gaps.slice();
    let n = 0, time = data.base;
    for (const line of raw) {
      while (gaps.length && gaps[0][0] <= n) {
        const [first, last] = gaps.shift();
        made.gaps.set(made.texts.length, last - first + 1);
        n = last + 1;
      }
      const blank = line.indexOf(" ");
      if (time !== null) time += parseInt(line.slice(0, blank), 36);
      made.numbers.push(n++);
      made.times.push(time);
      made.kinds.push(line[blank + 1]);
      made.texts.push(line.slice(blank + 2));
    }
    for (const [number, target, what] of data.references) {
      if (!made.references.has(number)) made.references.set(number, []);
      made.references.get(number).push([target, what]);
    }
    logs.set(id, made);
    return made;
  };

  const placeOf = (numbers, n) => {
    let low = 0, high = numbers.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (numbers[middle] < n) low = middle + 1; else high = middle;
    }
    return low;
  };

  const rowOf = (at) => {
    const n = log.numbers[at], kind = log.kinds[at];
    const rows = [];
    if (log.gaps.has(at)) {
      rows.push(element("div", "log-gap", `${log.gaps.get(at)} lines had no room in the report; the log file has them`));
    }
    if (log.data.heads[n]) rows.push(element("div", "log-head", log.data.heads[n]));
    const row = element("div", `ll${kind === " " ? "" : ` k${kind}`}${n === here ? " here" : ""}`);
    row.dataset.n = n;
    row.append(element("span", "no", n + 1), element("span", "clock", log.times[at] === null ? "" : clock(log.times[at])));
    const shown = element("span", "text");
    if (MARKS.includes(kind)) shown.append(">>> ");
    const line = log.texts[at], wanted = search.value.toLowerCase();
    if (wanted && line.toLowerCase().includes(wanted)) {
      const low = line.toLowerCase();
      let from = 0;
      for (let hit = low.indexOf(wanted); hit >= 0; hit = low.indexOf(wanted, from)) {
        shown.append(line.slice(from, hit), element("mark", "", line.slice(hit, hit + wanted.length)));
        from = hit + wanted.length;
      }
      shown.append(line.slice(from));
    } else {
      shown.append(line);
    }
    row.append(shown);
    for (const [target, what] of log.references.get(n) || []) {
      const link = element("a", "reference", `← ${what}`);
      link.href = `#${target}`;
      link.addEventListener("click", (event) => {
        event.preventDefault();
        if (location.hash === link.hash) revealHash(); else location.hash = link.hash;
      });
      row.append(link);
    }
    rows.push(row);
    return rows;
  };

  const fill = (chunk) => {
    if (chunk.full) return;
    chunk.full = true;
    const rows = document.createDocumentFragment();
    for (let at = chunk.first; at < chunk.end; at++) rows.append(...rowOf(view[at]));
    chunk.box.replaceChildren(rows);
    chunk.box.style.height = "";
  };
  const empty = (chunk) => {
    if (!chunk.full) return;
    chunk.box.style.height = `${chunk.box.offsetHeight}px`;
    chunk.box.replaceChildren();
    chunk.full = false;
  };
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) (entry.isIntersecting ? fill : empty)(entry.target.chunk);
  }, { root: scroller, rootMargin: "1200px 0px" });

  const lay = () => {
    observer.disconnect();
    view = [];
    for (let at = 0; at < log.texts.length; at++) {
      if (!telling.checked || TELLING.includes(log.kinds[at]) || log.data.heads[log.numbers[at]]
          || log.references.has(log.numbers[at]) || log.numbers[at] === here) view.push(at);
    }
    chunks = [];
    for (let first = 0; first < view.length; first += CHUNK) {
      const box = element("div", "chunk");
      const chunk = { box, first, end: Math.min(first + CHUNK, view.length), full: false };
      box.chunk = chunk;
      box.style.height = `${(chunk.end - first) * LINE_HEIGHT}px`;
      chunks.push(chunk);
    }
    scroller.replaceChildren(...chunks.map((chunk) => chunk.box));
    chunks.forEach((chunk) => observer.observe(chunk.box));
  };

  const refresh = () => chunks.filter((chunk) => chunk.full).forEach((chunk) => { chunk.full = false; fill(chunk); });

  const go = (n) => {
    if (telling.checked && here !== n) { here = n; lay(); }
    here = n;
    const at = placeOf(log.numbers, n), place = placeOf(view, at);
    if (!view.length) return;
    const middle = Math.min(Math.floor(place / CHUNK), chunks.length - 1);
    [middle - 1, middle, middle + 1].filter((c) => chunks[c]).forEach((c) => fill(chunks[c]));
    scroller.querySelectorAll(".here").forEach((old) => old.classList.remove("here"));
    const row = scroller.querySelector(`[data-n="${view[place] === undefined ? "" : log.numbers[view[place]]}"]`);
    if (!row) return;
    row.classList.add("here");
    // Not scrollIntoView: it would scroll the page as well.
    const centre = () => {
      scroller.scrollTop += row.getBoundingClientRect().top - scroller.getBoundingClientRect().top
        - scroller.clientHeight / 3;
    };
    centre();
    requestAnimationFrame(() => requestAnimationFrame(centre));
  };

  const open = async (id, n, from) => {
    if (!$(`${id}data`)) return false;
    if (!canUnpack) {
      alert("This browser cannot unpack the log (it has no DecompressionStream). The log file lies beside the report.");
      return true;
    }
    const next = await load(id);
    dock.hidden = false;
    document.body.classList.add("with-dock");
    if (log !== next) {
      log = next;
      here = n === null ? -1 : n;
      const name = $(id).querySelector("h3").textContent.trim().replace(/\s+/g, " ");
      $("dock-title").textContent = `${name}${log.data.date ? `, ${log.data.date}` : ""}`;
      lay();
      find(false);
    }
    origin = from || origin;
    $("log-back").hidden = !origin;
    if (n !== null) go(n);
    scroller.focus({ preventScroll: true });
    return true;
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.line, button.open-log");
    if (!link || event.ctrlKey || event.metaKey) return;
    const line = link.matches("a") && /^#(b\d+)l(\d+)$/.exec(link.getAttribute("href"));
    if (line && !$(`${line[1]}data`)) return;
    event.preventDefault();
    if (line) open(line[1], Number(line[2]), link); else open(link.dataset.board, null, link);
  });

  const close = () => {
    dock.hidden = true;
    document.body.classList.remove("with-dock");
    back();
  };
  const back = () => {
    if (!origin || !origin.isConnected) return;
    const around = origin.closest("details");
    if (around) around.open = true;
    origin.scrollIntoView({ block: "center" });
    origin.focus({ preventScroll: true });
  };
  $("dock-close").addEventListener("click", close);
  $("log-back").addEventListener("click", () => {
    if (matchMedia("(max-width: 700px)").matches) close(); else back();
  });
  $("dock-size").addEventListener("click", (event) => {
    const large = document.body.classList.toggle("large-dock");
    event.target.setAttribute("aria-pressed", large);
    event.target.textContent = large ? "Smaller" : "Larger";
  });
  telling.addEventListener("change", () => { lay(); if (here >= 0) go(here); find(false); });

  /* Search: all lines that hold the text, whatever its case. */
  const find = (jump) => {
    const wanted = search.value.toLowerCase();
    found = [];
    if (wanted) view.forEach((at) => { if (log.texts[at].toLowerCase().includes(wanted)) found.push(log.numbers[at]); });
    current = -1;
    refresh();
    tell(wanted);
    if (jump && found.length) step(1);
  };
  const tell = (wanted) => {
    const places = found.length === 1 ? "1 line" : `${found.length} lines`;
    $("log-count").textContent = !wanted ? "" : !found.length ? "not found" : current < 0 ? places : `${current + 1} of ${places}`;
  };
  const step = (by) => {
    if (!found.length) return;
    if (current < 0) {
      const after = placeOf(found, here < 0 ? 0 : here);
      current = by > 0 ? after % found.length : (after - 1 + found.length) % found.length;
    } else {
      current = (current + by + found.length) % found.length;
    }
    go(found[current]);
    tell(search.value);
  };
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => find(true), 150); });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    clearTimeout(waiting);
    if (current < 0 && !found.length) find(true); else step(event.shiftKey ? -1 : 1);
  });
  $("log-next").addEventListener("click", () => step(1));
  $("log-previous").addEventListener("click", () => step(-1));
  document.addEventListener("keydown", (event) => {
    if (dock.hidden) return;
    if (event.key === "Escape") close();
    if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
      event.preventDefault();
      search.focus();
    }
  });

  revealHash();
})();
