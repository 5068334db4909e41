// Keeps the page fresh: replaces its live part when that has changed, appends to the log, tells how long ago things were.
// It asks only while the page is seen, and less often while nothing changes.
"use strict";

const QUICK_MS = 1500, SLOW_MS = 5000, LOG_MS = 1000, MOST_LINES = 2000;
const freshness = document.getElementById("freshness");
let failedSince = null;

function say(ok) {
  if (ok) {
    failedSince = null;
    freshness.textContent = "live";
    freshness.className = "";
  } else {
    failedSince = failedSince || new Date();
    freshness.textContent = "not updated since " + failedSince.toLocaleTimeString() + ": the server does not answer";
    freshness.className = "stale";
  }
}

function ago(seconds) {
  if (seconds < 90) return Math.max(0, Math.round(seconds)) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " d";
}

function tellAges() {
  for (const time of document.querySelectorAll("time[data-at]")) {
    time.dataset.text = time.dataset.text || time.textContent;
    const text = time.dataset.text + " (" + ago(Date.now() / 1000 - Number(time.dataset.at)) + " ago)";
    if (time.textContent !== text) time.textContent = text;
  }
}

// Calls `work` for as long as the page is there, and waits while it is hidden.
async function repeat(work) {
  for (;;) {
    let wait = SLOW_MS;
    if (!document.hidden) {
      try {
        wait = await work();
        say(true);
      } catch (error) {
        say(false);
      }
    }
    await new Promise((done) => {
      const timer = setTimeout(done, wait);
      document.addEventListener("visibilitychange", () => { clearTimeout(timer); done(); }, { once: true });
    });
  }
}

async function get(url, headers) {
  const answer = await fetch(url, { headers: headers || {}, cache: "no-store", redirect: "error" });
  if (!answer.ok && answer.status !== 304) throw new Error(answer.status);
  return answer;
}

const live = document.querySelector("[data-live]");
if (live) {
  let tag = null, same = 0;
  repeat(async () => {
    const answer = await get(live.dataset.live, tag ? { "If-None-Match": tag } : {});
    if (answer.status === 200) {
      tag = answer.headers.get("ETag");
      live.innerHTML = await answer.text();
      tellAges();
      same = 0;
    } else {
      same += 1;
    }
    return same > 20 ? SLOW_MS : QUICK_MS;
  });
}

const log = document.getElementById("log");
if (log) {
  let place = "";
  repeat(async () => {
    const piece = await (await get(log.dataset.log + "?place=" + encodeURIComponent(place))).json();
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 30;
    if (piece.fresh && piece.lines.length) log.replaceChildren();
    for (const [at, kind, text] of piece.lines) {
      const line = document.createElement("div"), time = document.createElement("span");
      line.className = kind;
      time.className = "at";
      time.textContent = at ? at + (kind === "mark" ? " >>> " : " | ") : "";
      line.append(time, text);
      log.append(line);
    }
    while (log.childElementCount > MOST_LINES) log.firstElementChild.remove();
    if (piece.lines.length && atEnd) log.scrollTop = log.scrollHeight;
    place = piece.place;
    return piece.lines.length ? LOG_MS : place ? 2 * LOG_MS : SLOW_MS;
  });
}

tellAges();
setInterval(() => document.hidden || tellAges(), 5000);
if (!live && !log) freshness.textContent = "";
